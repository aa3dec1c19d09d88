"""Live sources faster or slower than their reader, sources that fail or fall silent, cameras and streams."""

import http.server
import os
import signal
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest

from masktrack_jax.runtime.errors import UserError
from masktrack_jax.video.files import FrameFolder, open_video
from masktrack_jax.video.live import LiveSource, open_source
from tests.helpers.cameras import NO_SIGNAL, Camera, started, wait_until
from tests.helpers.videos import SHIFTED, close_in_colour, encode


def test_without_dropping_the_source_waits_and_every_frame_comes():
    camera, source = started(drop=False)
    camera.give(49)
    camera.end()
    assert (source.height, source.width, source.length, source.live) == (90, 150, None, True)
    for number, frame in source.numbered(NO_SIGNAL):
        ahead = min(number + 3, 51)
        wait_until(lambda ahead=ahead: camera.asked >= ahead)
        time.sleep(0.01 if number < 5 else 0)  # time for a wrong read
        assert camera.asked == ahead, "one frame is held, one waits, and no more are read"
        assert (frame == number).all()
    assert number == 49 and source.dropped == 0


def test_a_slow_reader_gets_the_latest_frame_and_dropped_ones_are_counted():
    camera, source = started(drop=True)
    seen = []
    for number, frame in source.numbered(NO_SIGNAL):
        assert (frame == number % 256).all()
        seen.append(number)
        if number == 0:
            camera.give(10)
            wait_until(lambda: camera.asked == 12)
        elif number == 10:
            camera.give(1)
            wait_until(lambda: camera.asked == 13)
        elif number == 11:
            camera.give(500)
            camera.end()
            wait_until(lambda: source._frames._ended)
    assert seen == [0, 10, 11, 511] and source.dropped == 9 + 499
    assert source._frames._held is None


@pytest.mark.parametrize("drop", [False, True])
def test_nothing_is_dropped_of_a_slow_source(drop):
    camera, source = started(drop)
    seen = []
    for number, _ in source.numbered(NO_SIGNAL):
        seen.append(number)
        camera.give() if number < 20 else camera.end()
    assert seen == list(range(21)) and source.dropped == 0


@pytest.mark.parametrize("drop", [False, True])
def test_a_signal_ends_it_while_the_source_is_silent(drop):
    _, source = started(drop)
    interruption = SimpleNamespace(signal=None)
    timer = threading.Timer(0.2, lambda: setattr(interruption, "signal", signal.SIGINT))
    begun = time.monotonic()
    numbers = []
    for number, _ in source.numbered(interruption):
        numbers.append(number)
        timer.start()
    assert numbers == [0] and 0.15 < time.monotonic() - begun < 10  # the source is silent for ever


def test_the_thread_ends_when_reading_stops():
    before = set(threading.enumerate())
    camera, source = started(drop=False)
    camera.give(5)
    (thread,) = set(threading.enumerate()) - before
    for _ in source.numbered(NO_SIGNAL):
        break
    thread.join(10)
    assert not thread.is_alive()


def test_a_source_that_fails_ends_with_a_warning(caplog):
    camera, source = started(drop=False)
    camera.give(2)
    camera.end("No such device")
    assert [number for number, _ in source.numbered(NO_SIGNAL)] == [0, 1, 2]
    (warning,) = caplog.records
    assert warning.getMessage() == "camera: failed (No such device)"
    for how, words in (("end", "returned no frame$"), ("unplugged", r"returned no frame \(unplugged\)")):
        camera = Camera()
        camera.end(how)
        with pytest.raises(UserError, match=words):
            LiveSource("camera", iter(camera), 10.0)


def test_inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "00000"
    folder.mkdir()
    cv2.imwrite(str(folder / "0.png"), np.zeros((4, 4, 3), np.uint8))
    assert isinstance(open_source("00000"), FrameFolder), "not a camera: there is such a folder"
    with pytest.raises(
        UserError, match=r"00000: frames of a file are never dropped; leave out --drop_frames"
    ):
        open_source("00000", drop_frames=True)
    with pytest.raises(UserError, match=r"camera 73: does not exist or cannot be opened"):
        open_source("73")
    for name in ("999999", "9" * 30, "9" * 5000):
        with pytest.raises(UserError, match=r"cannot be opened(;| \(File name)"):
            open_source(name)
    with pytest.raises(UserError, match=r"٣: no such video"):
        open_source("٣")
    with pytest.raises(UserError, match=r"tcp://127.0.0.1:1: not a video that can be read \(.*refused"):
        open_source("tcp://127.0.0.1:1")
    with pytest.raises(UserError, match=r"clip.mp4: no such"):
        open_source("clip.mp4")


def test_a_camera_of_opencv(monkeypatch):
    """A fake one: frames are converted from BGR, and the camera is released."""
    released = []

    class Capture:
        def __init__(self, number):
            self.left = number

        def isOpened(self):
            return True

        def get(self, what):
            assert what == cv2.CAP_PROP_FPS
            return 0.0

        def read(self):
            self.left -= 1
            return (True, np.full((4, 6, 3), [10, 20, 30], np.uint8)) if self.left >= 0 else (False, None)

        def release(self):
            released.append(True)

    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    source = open_source("3")
    frames = [frame for _, frame in source.numbered(NO_SIGNAL)]
    assert [frame[0, 0].tolist() for frame in frames] == [[30, 20, 10]] * 3
    assert source.fps == 30.0 and source.name == "camera 3" and released


@pytest.mark.parametrize("form, codec", [("mpegts", "libx264"), ("matroska", "ffv1")])
def test_a_stream_over_the_network(tmp_path, form, codec):
    path = tmp_path / "stream"
    encode(path, SHIFTED * 3, codec, form=form)
    data = path.read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        source = open_source(f"tcp://127.0.0.1:{server.getsockname()[1]}")
        frames = [frame for _, frame in source.numbered(NO_SIGNAL)]
    assert len(frames) == 18 and all(map(close_in_colour, frames, SHIFTED * 3))


def test_broken_packets_are_skipped_with_a_warning(tmp_path, caplog):
    path = tmp_path / "broken.mkv"
    encode(path, SHIFTED, "mjpeg", "yuvj420p")
    whole = list(open_video(path).frames())
    with av.open(str(path)) as container:
        third = bytes(list(container.demux(video=0))[2])
    assert path.read_bytes().count(third) == 1
    path.write_bytes(path.read_bytes().replace(third, bytes(len(third))))
    for name in (path, f"file://{path}"):
        frames = list(open_source(name).frames())
        assert len(frames) == 5 and all(map(np.array_equal, frames, whole[:2] + whole[3:]))
        assert caplog.records.pop().getMessage() == f"{path}: 1 packets could not be decoded"


NAMES = [
    *("10:22:33.mp4", "concat:x.mp4", "file:x.mp4", "http:x.mp4", "pipe:0", "-", "-i", "--", "data:x", "0"),
    *("subfile,,start,0,end,9,,:x", "frame%d.png", "*.mp4", "a\nb\x1b[31m.mp4", "\udcff.mp4", "é" * 120),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_path_that_exists_is_a_file_whatever_its_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    encode("x", SHIFTED[:2], "libx264", form="mp4")
    encode("x.mp4", SHIFTED[:3], "libx264")
    encode("clip.mp4", SHIFTED, "libx264")
    Path("clip.mp4").rename(name)
    names = [str(tmp_path / name), f"file://{tmp_path / name}", f"./{name}", *[name] * (name != "-")]
    for each in names:
        frames = list(open_source(each).frames())
        assert len(frames) == 6 and all(map(close_in_colour, frames, SHIFTED))
    damaged = Path(name)
    damaged.write_bytes(b"nothing")
    with pytest.raises(UserError) as caught:
        open_source(f"./{name}")
    assert not any(unprintable in str(caught.value) for unprintable in "\n\x1b\udcff")


def test_urls_of_files(tmp_path):
    path = tmp_path / "a b%20c.mp4"
    encode(path, SHIFTED, "libx264")
    quoted = str(path).replace("%", "%25").replace(" ", "%20")
    for url in (f"file://{path}", f"file://{quoted}", f"file://localhost{quoted}"):
        assert len(list(open_source(url).frames())) == 6
    with pytest.raises(UserError, match=r"gone\.mp4: no such video"):
        open_source(f"file://{tmp_path}/gone.mp4")


def test_a_pipe_by_its_name(tmp_path):
    """A stream like the standard input; if nobody writes to it, the limit ends the waiting."""
    pipe, path = tmp_path / "pipe", tmp_path / "clip.ts"
    os.mkfifo(pipe)
    begun = time.monotonic()
    with pytest.raises(UserError, match=r"pipe: no answer for 0\.3 s"):
        open_source(pipe, limit=0.3)
    assert time.monotonic() - begun < 5
    other = tmp_path / "other"
    os.mkfifo(other)
    encode(path, SHIFTED, "libx264")
    threading.Thread(target=lambda: other.write_bytes(path.read_bytes()), daemon=True).start()
    source = open_source(other)
    assert source.live and len(list(source.numbered(NO_SIGNAL))) == 6


@pytest.mark.parametrize("data", ["nothing", "some frames"])
def test_a_source_that_falls_silent(tmp_path, caplog, data):
    """It accepts a connection and says nothing, or nothing more."""
    encode(tmp_path / "clip.ts", SHIFTED, "libx264")
    content = (tmp_path / "clip.ts").read_bytes() * 40 if data == "some frames" else b""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []

        def serve():
            kept.append(server.accept()[0])
            kept[0].sendall(content)

        threading.Thread(target=serve, daemon=True).start()
        address, begun = f"tcp://127.0.0.1:{server.getsockname()[1]}", time.monotonic()
        if content:
            frames = list(open_source(address, limit=1).numbered(NO_SIGNAL))
            assert len(frames) > 200
            assert any(
                "failed" in note.getMessage() or "no frame" in note.getMessage() for note in caplog.records
            )
        else:
            with pytest.raises(UserError, match=rf"{address}: no answer for 1 s"):
                open_source(address, limit=1)
        assert time.monotonic() - begun < 20


def test_an_address_reaches_no_file(tmp_path):
    """Neither by its protocol nor by a playlist of the server."""
    encode(tmp_path / "private.ts", SHIFTED, "libx264")
    private = tmp_path / "private.ts"
    for address in (
        f"concat://{private}",
        f"subfile://,,start,0,end,0,,:{private}",
        f"async://file:{private}",
    ):
        with pytest.raises(UserError, match="not a video that can be read"):
            open_source(address, limit=5)
    for segment in (f"file://{private}", str(private), f"subfile,,start,0,end,0,,:{private}"):
        playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{segment}\n#EXT-X-ENDLIST\n".encode()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self, playlist=playlist):
                self.send_response(200)
                self.send_header("Content-Type", "application/vnd.apple.mpegurl")
                self.end_headers()
                self.wfile.write(playlist)

            def log_message(self, *_):
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            with pytest.raises(UserError, match=r"list\.m3u8: "):
                open_source(f"http://127.0.0.1:{server.server_address[1]}/list.m3u8", limit=5)
            server.shutdown()
