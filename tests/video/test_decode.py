"""What a player shows of a file: its main stream, upright, without damaged packets; and no other file.

The oracle of orientations moves each pixel by the matrix; FFmpeg's and OpenCV's rotations play no part in it.
"""

import itertools
import re
import socket
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from masktrack_jax.runtime.errors import UserError
from masktrack_jax.video.decode import MAX_PIXELS, upright
from masktrack_jax.video.files import open_video
from tests.helpers.videos import (
    SHIFTED,
    close_in_colour,
    encode,
    quadrants,
    set_display_matrix,
    write_cover,
    write_video,
)

SIGNS = list(itertools.product((1, -1), repeat=2))
ORIENTATIONS = [(x, 0, 0, y) for x, y in SIGNS] + [(0, x, y, 0) for x, y in SIGNS]


def shown(frame, a, b, c, d):
    """Move the pixel at (x, y) of a frame to (a x + c y, b x + d y), where a to d are 0, 1 or -1."""
    y, x = np.mgrid[: frame.shape[0], : frame.shape[1]]
    columns, rows = a * x + c * y, b * x + d * y
    columns, rows = columns - columns.min(), rows - rows.min()
    moved = np.empty((rows.max() + 1, columns.max() + 1, 3), np.uint8)
    moved[rows, columns] = frame
    return moved


@pytest.mark.parametrize("matrix", ORIENTATIONS)
@pytest.mark.parametrize("scales", [(1, 1), (0.5, 0.5), (3, 0.25)])
def test_every_orientation_with_and_without_scaling(matrix, scales):
    frame = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    a, b, c, d = matrix
    x, y = (round(65536 * scale) for scale in scales)
    stated = struct.pack("=9i", a * x, b * y, 0, c * x, d * y, 0, 7, 0, 1 << 30)
    np.testing.assert_array_equal(upright(frame, stated), shown(frame, *matrix))


def test_a_matrix_that_states_no_orientation():
    frame = np.zeros((5, 7, 3), np.uint8)
    for values in ((0,) * 9, (-(1 << 31),) * 9, (1 << 16, 9, 0, -9, 1 << 16, 0, 0, 0, 1)):
        assert upright(frame, struct.pack("=9i", *values)).shape == frame.shape
    assert upright(frame, b"") is frame and upright(frame, b"short") is frame


@pytest.mark.parametrize("matrix", ORIENTATIONS)
def test_files_are_shown_upright(tmp_path, matrix):
    path = tmp_path / "turned.mp4"
    write_video(path, 1)
    set_display_matrix(path, matrix)
    video = open_video(path)
    (frame,) = video.frames()
    expected = shown(quadrants(48, 64), *matrix)
    assert (video.height, video.width) == frame.shape[:2] == expected.shape[:2]
    assert close_in_colour(frame, expected)


@pytest.mark.parametrize("name, attached", [("film.mkv", False), ("film.mp4", True)])
def test_a_cover_is_not_the_video(tmp_path, name, attached):
    write_cover(tmp_path / name, True, attached)
    frames = list(open_video(tmp_path / name).frames())
    assert len(frames) == 6 and all(map(close_in_colour, frames, SHIFTED))


@pytest.mark.parametrize(
    "name, attached, words",
    [
        ("song.mp4", True, "has only a cover picture"),
        ("song.flac", True, "has only a cover picture"),
        ("song.mkv", False, "holds sound and one picture"),
    ],
)
def test_a_song_is_no_video(tmp_path, name, attached, words):
    write_cover(tmp_path / name, False, attached, "flac" if name == "song.flac" else "aac")
    with pytest.raises(UserError, match=f"{name}: {words}.*give a video"):
        open_video(tmp_path / name)


@pytest.mark.parametrize("damaged", [(0,), (3,), (5,), (1, 4), (0, 1, 2, 3, 4, 5)])
def test_damaged_packets_are_skipped_and_counted(tmp_path, caplog, damaged):
    """Wherever they are. If nothing is left, it is an error."""
    path = tmp_path / "damaged.mov"
    encode(path, SHIFTED, "mjpeg", "yuvj420p")
    whole, data = list(open_video(path).frames()), path.read_bytes()
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0)]
    for number in damaged:
        assert data.count(packets[number]) == 1
        data = data.replace(packets[number], bytes(len(packets[number])))
    path.write_bytes(data)
    if len(damaged) == 6:
        with pytest.raises(
            UserError, match=r"damaged\.mov: holds no frame of the 6 that it states \(6 packets"
        ):
            open_video(path)
        return
    for _ in range(2):
        frames = list(open_video(path).frames())
        expected = [frame for number, frame in enumerate(whole) if number not in damaged]
        assert len(frames) == len(expected) and all(map(np.array_equal, frames, expected))
        (note,) = caplog.records
        assert note.getMessage() == f"{path}: {len(damaged)} packets could not be decoded"
        caplog.clear()


def test_metadata_in_any_encoding(tmp_path):
    path = tmp_path / "titled.mkv"
    encode(path, SHIFTED, "libx264", metadata={"title": "Kuh auf der Wiese"})
    assert path.read_bytes().count(b"Kuh auf") == 1
    path.write_bytes(path.read_bytes().replace(b"Kuh auf", b"\xcf\xe0\xff auf"))
    assert len(list(open_video(path).frames())) == 6


def test_files_that_are_no_video_are_named(tmp_path):
    encode(tmp_path / "it.mp4", SHIFTED, "libx264")
    data = (tmp_path / "it.mp4").read_bytes()
    assert data[4:12] == b"ftypisom"
    for content, words in (
        (data.replace(b"isom", b"heic", 1), "is a HEIC picture, which cannot be read; convert it"),
        (b"#EXTM3U\n#EXTINF:9,\nit.mp4\n", "is a playlist, which names other files; give one"),
        (b"hello\n" * 100, "not a video that can be read"),
    ):
        (tmp_path / "it.mov").write_bytes(content)
        with pytest.raises(UserError, match=rf"it\.mov: {words}"):
            open_video(tmp_path / "it.mov")


def test_no_file_makes_ffmpeg_open_another(tmp_path, monkeypatch):
    """A playlist or session description that names a file or a port, with any suffix."""
    monkeypatch.chdir(tmp_path)
    encode(tmp_path / "private.ts", SHIFTED, "libx264")
    encode(tmp_path / "private.mp4", SHIFTED, "libx264")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        for form in (
            "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n",
            "ffconcat version 1.0\nfile {}\n",
            "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n"
            "a=rtpmap:96 H264/90000\n",
            "# VobSub index file, v7\nsize: 64x48\nid: en, index: 0\n{}\n",
            "<?xml version='1.0'?>\n<MPD type='static'><Period><BaseURL>{}</BaseURL></Period></MPD>\n",
        ):
            for target in ("private.ts", str(tmp_path / "private.ts"), f"tcp://127.0.0.1:{port}"):
                for name in (
                    "it.m3u8",
                    "it.mp4",
                    "it.ffconcat",
                    "it.sdp",
                    "it.idx",
                    "http:x.m3u8",
                    "it%d.ts",
                ):
                    (tmp_path / name).write_text(form.format(target, port=port))
                    with pytest.raises(UserError, match=re.escape(name)):
                        open_video(name)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_movie_does_not_read_another_file(tmp_path, monkeypatch):
    """A QuickTime file whose pictures are in another file, named in its `dref` box as FFmpeg reads it."""
    monkeypatch.chdir(tmp_path)
    encode("movie.mov", SHIFTED, "mjpeg", "yuvj420p")
    encode("private.mov", [frame // 2 for frame in SHIFTED], "mjpeg", "yuvj420p")
    data = Path("movie.mov").read_bytes()
    reference = b"\0\0\0\x0curl \0\0\0\x01"  # to the file itself
    assert data.count(reference) == 1
    path = b"/private.mov"
    alias = b"alis" + bytes(4 + 10 + 28 + 12 + 64 + 16) + b"\0\1\0\1" + bytes(16)
    alias += struct.pack(">HH", 2, len(path)) + path + b"\xff\xff" + bytes(32)
    alias = struct.pack(">I", 4 + len(alias)) + alias
    changed = bytearray(data.replace(reference, alias))
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        at = changed.index(box) - 4
        (size,) = struct.unpack_from(">I", changed, at)
        struct.pack_into(">I", changed, at, size + len(alias) - len(reference))
    Path("movie.mov").write_bytes(changed)

    with av.open("movie.mov", options={"enable_drefs": "1"}) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 6 and np.mean(frames) < 80, "else the test proves nothing"
    with pytest.raises(UserError, match=r"movie\.mov: holds no frame"):
        open_video("movie.mov")


def test_a_frame_of_enormous_size_is_not_allocated(tmp_path):
    """The header of an mp4 or PNG may state any size."""
    path = tmp_path / "huge.png"
    encode(path.with_suffix(".apng"), SHIFTED, "apng", "rgb24")
    data = bytearray(path.with_suffix(".apng").read_bytes())
    at = data.index(b"IHDR") + 4
    for side in (MAX_PIXELS >> 12, 1 << 20, (1 << 31) - 1):
        data[at : at + 8] = struct.pack(">2I", side, side)
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"huge\.png: (holds no frame|not a video)"):
            open_video(path)
