"""Live sources that are slower or faster than who looks at them, break off, fall silent, or are none."""

import json
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest

from masktrack_jax.inference.track_video import track_video
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.video.files import FrameFolder, VideoWriter, open_video
from masktrack_jax.video.live import LiveSource, open_source
from tests.helpers.configs import ROOT
from tests.inference.test_segmenter import KnownDetector, moving_objects, segmenter_of
from tests.video.test_files import SHIFTED, close_in_colour, encode

NOBODY = SimpleNamespace(signal=None)  # an `Interruption` to which no signal comes


class Camera:
    """A source that gives frame after frame as it is told to; frame i has i % 256 in every pixel.

    asked: of how many frames the reader has wanted to have the next one.
    """

    def __init__(self):
        self.asked, self._told = 0, queue.Queue()

    def give(self, count=1):
        for _ in range(count):
            self._told.put("frame")

    def end(self, how="end"):
        self._told.put(how)

    def __iter__(self):
        index = 0
        while True:
            self.asked += 1
            told = self._told.get()
            if told == "frame":
                yield np.full((90, 150, 3), index % 256, np.uint8)
                index += 1
            elif told == "end":
                return
            else:
                raise OSError(5, told)


def wait_until(condition):
    """Until `condition()`; a test that waits for ten seconds fails."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def started(drop):
    camera = Camera()
    camera.give()
    return camera, LiveSource("camera", iter(camera), 10.0, drop)


def test_without_dropping_the_source_waits_and_every_frame_comes():
    camera, source = started(drop=False)
    camera.give(49)
    camera.end()
    assert (source.height, source.width, source.length, source.live) == (90, 150, None, True)
    for number, frame in source.numbered(NOBODY):
        ahead = min(number + 3, 51)
        wait_until(lambda ahead=ahead: camera.asked >= ahead)
        time.sleep(0.01 if number < 5 else 0)  # room for a mistake
        assert camera.asked == ahead, "one is held, one waits for its place, and no more are read"
        assert (frame == number).all()
    assert number == 49 and source.dropped == 0


def test_a_slow_looker_sees_the_latest_frame_and_what_it_missed_is_counted():
    camera, source = started(drop=True)
    seen = []
    for number, frame in source.numbered(NOBODY):
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
            wait_until(lambda: source._ended)
    assert seen == [0, 10, 11, 511] and source.dropped == 9 + 499
    assert source._held is None


@pytest.mark.parametrize("drop", [False, True])
def test_nothing_is_dropped_of_a_slow_source(drop):
    camera, source = started(drop)
    seen = []
    for number, _ in source.numbered(NOBODY):
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
    assert numbers == [0] and 0.15 < time.monotonic() - begun < 2


def test_the_reader_ends_with_who_looks():
    others = set(threading.enumerate())
    camera, source = started(drop=False)
    camera.give(5)
    (reader,) = set(threading.enumerate()) - others
    for _ in source.numbered(NOBODY):
        break
    reader.join(10)
    assert not reader.is_alive()


def test_a_source_that_breaks_off_is_one_that_ends(caplog):
    camera, source = started(drop=False)
    camera.give(2)
    camera.end("No such device")
    assert [number for number, _ in source.numbered(NOBODY)] == [0, 1, 2]
    (said,) = caplog.records
    assert said.getMessage() == "camera: broke off (No such device)"
    for how, words in (("end", "gives no frame$"), ("unplugged", r"gives no frame \(unplugged\)")):
        camera = Camera()
        camera.end(how)
        with pytest.raises(UserError, match=words):
            LiveSource("camera", iter(camera), 10.0)


def track_live(tmp_path, monkeypatch, source, drop):
    """The summary, lines and tracks of `track_video` of a live source."""
    monkeypatch.setattr("masktrack_jax.inference.track_video.open_source", lambda *_: source)
    segmenter, output = segmenter_of(moving_objects(16)), tmp_path / "out"
    summary = track_video(segmenter, "0", output, drop_frames=drop)
    assert sorted(path.name for path in output.iterdir()) == ["frames.jsonl", "overlay.mp4", "results.json"]
    lines = [json.loads(line) for line in (output / "frames.jsonl").read_text().splitlines()]
    return summary, lines, json.loads((output / "results.json").read_text())


def numbered_source(monkeypatch, numbers, dropped):
    """A source of which these frames are seen."""
    camera, source = started(drop=True)
    frames = [(number, np.full((90, 150, 3), number, np.uint8)) for number in numbers]
    monkeypatch.setattr(source, "numbered", lambda _: iter(frames))
    source.dropped = dropped
    camera.end()
    return source


def test_frames_keep_the_numbers_and_the_times_of_the_source(tmp_path, monkeypatch):
    """Nothing of a run that was killed before it had saved anything is among them."""
    (tmp_path / "out" / "partial").mkdir(parents=True)
    with VideoWriter(tmp_path / "out" / "partial" / "overlay-000000000.mp4", 10, 450, 750) as writer:
        writer.write(np.zeros((450, 750, 3), np.uint8))
    numbers = [2, 3, 4, 9, 15]
    source = numbered_source(monkeypatch, numbers, 11)
    summary, lines, tracks = track_live(tmp_path, monkeypatch, source, True)
    assert (summary.frames, summary.dropped) == (5, 11) and "5 frames and 11 dropped" in str(summary)
    assert [line["frame"] for line in lines] == numbers
    assert lines[2]["track_ids"] and all(len(track["segmentations"]) == 5 for track in tracks)
    with av.open(str(tmp_path / "out" / "overlay.mp4")) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    assert times == pytest.approx([number / 10 for number in numbers], abs=1e-3), "from the source's start"


@pytest.mark.parametrize("drop", [False, True])
def test_a_live_run_ends_well_at_ctrl_c(tmp_path, monkeypatch, drop):
    """With the results of the frames so far, and no word of going on."""
    camera, source = started(drop)
    detector = KnownDetector.__call__

    def at_work(self, images, sizes):
        if len(self.shapes) == 1:  # the source gives no more, and does not end
            signal.raise_signal(signal.SIGINT)
        camera.give(1 if drop else 4)
        return detector(self, images, sizes)

    camera.give(3)
    monkeypatch.setattr(KnownDetector, "__call__", at_work)
    summary, lines, _ = track_live(tmp_path, monkeypatch, source, drop)
    assert summary.frames == len(lines) >= 2


def test_a_live_run_does_not_go_on_with_what_was_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr("masktrack_jax.inference.resume.SAVE_FRAMES", 4)
    camera, source = started(drop=False)
    camera.give(15)
    camera.end()
    monkeypatch.setattr("masktrack_jax.inference.track_video.open_source", lambda *_: source)
    with pytest.raises(IndexError):
        track_video(segmenter_of(moving_objects(8)), "0", tmp_path / "out")
    camera, source = started(drop=False)
    with pytest.raises(UserError, match=r"out/partial: holds 4 frames of a run that was cut off, and a live"):
        track_video(segmenter_of(moving_objects(8)), "0", tmp_path / "out")


def test_what_is_given_as_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "00000"
    folder.mkdir()
    cv2.imwrite(str(folder / "0.png"), np.zeros((4, 4, 3), np.uint8))
    assert isinstance(open_source("00000"), FrameFolder), "not a camera: there is such a folder"
    with pytest.raises(UserError, match=r"00000: a file waits for its reader; leave out --drop_frames"):
        open_source("00000", drop_frames=True)
    with pytest.raises(UserError, match=r"camera 73: there is none, or it cannot be opened"):
        open_source("73")
    with pytest.raises(UserError, match=r"tcp://127.0.0.1:1: not a video that can be read \(.*refused"):
        open_source("tcp://127.0.0.1:1")
    with pytest.raises(UserError, match=r"clip.mp4: no such"):
        open_source("clip.mp4")


def test_a_camera_of_opencv(monkeypatch):
    """No real one: that what OpenCV gives is turned from BGR, and that it is let go."""
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
    frames = [frame for _, frame in source.numbered(NOBODY)]
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
        frames = [frame for _, frame in source.numbered(NOBODY)]
    assert len(frames) == 18 and all(map(close_in_colour, frames, SHIFTED * 3))


def test_packets_that_cannot_be_decoded_are_left_out_and_said(tmp_path, caplog):
    path = tmp_path / "broken.mkv"
    encode(path, SHIFTED, "mjpeg", "yuvj420p")
    whole = list(open_video(path).frames())
    with av.open(str(path)) as container:
        third = bytes(list(container.demux(video=0))[2])
    assert path.read_bytes().count(third) == 1
    path.write_bytes(path.read_bytes().replace(third, bytes(len(third))))
    source = open_source(f"file://{path}")
    frames = [frame for _, frame in source.numbered(NOBODY)]
    assert len(frames) == 5 and all(map(np.array_equal, frames, whole[:2] + whole[3:]))
    assert caplog.records[-1].getMessage() == f"file://{path}: 1 packets could not be decoded"


def test_a_video_through_the_standard_input_is_that_of_its_file(tmp_path):
    path = tmp_path / "clip.mkv"
    encode(path, [np.full((90, 150, 3), 8, np.uint8)] * 11, "ffv1", "gray")
    command = [sys.executable, "-m", "tests.helpers.track_known"]
    for name, output in ((path, "file"), ("-", "pipe")):
        with open(path, "rb") as file:
            done = subprocess.run(
                [*command, name, tmp_path / output], stdin=file, env={"PYTHONPATH": str(ROOT)}, text=True,
                capture_output=True, check=False,
            )  # fmt: skip
        assert done.returncode == 0 and "11 frames, 2 tracks" in done.stdout, done.stderr
    for name in ("frames.jsonl", "results.json"):
        assert (tmp_path / "pipe" / name).read_bytes() == (tmp_path / "file" / name).read_bytes()
    assert len(list(open_video(tmp_path / "pipe" / "overlay.mp4").frames())) == 11
