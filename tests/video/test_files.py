"""Written videos and videos of other encoders are read back; invalid input gives errors of one line."""

import struct

import numpy as np
import pytest
from PIL import Image

from masktrack_jax.runtime.errors import UserError
from masktrack_jax.video.files import VideoWriter, open_video
from tests.helpers.videos import SHIFTED, close_in_colour, encode, quadrants, write_video


@pytest.mark.parametrize("height, width", [(48, 64), (47, 65)])
def test_written_frames_come_back(tmp_path, height, width):
    path = tmp_path / "clip.mp4"
    write_video(path, 7, height, width)
    video = open_video(path)
    even = (height + height % 2, width + width % 2)
    assert (video.height, video.width) == even
    assert video.fps == pytest.approx(12.5) and video.length == 7
    for _ in range(2):  # frames() starts again
        frames = list(video.frames())
        assert len(frames) == 7
        for index, frame in enumerate(frames):
            assert frame.shape == (*even, 3) and frame.dtype == np.uint8
            assert close_in_colour(frame[:height, :width], quadrants(height, width, 4 * index))
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_variable_frame_rate_loses_no_frame(tmp_path):
    path = tmp_path / "phone.mkv"
    encode(path, SHIFTED, "libx264", times=[0, 10, 500, 510, 2000, 2040])
    frames = list(open_video(path).frames())
    assert len(frames) == 6 and all(map(close_in_colour, frames, SHIFTED))


@pytest.mark.parametrize("pixels", ["gray", "gray16le", "yuv420p10le"])
def test_grey_and_deep_videos_become_rgb(tmp_path, pixels):
    path = tmp_path / "odd.mkv"
    encode(path, SHIFTED, "ffv1", pixels)
    for frame, wanted in zip(open_video(path).frames(), SHIFTED, strict=True):
        if pixels.startswith("gray"):
            wanted = np.repeat(wanted @ np.array([0.299, 0.587, 0.114])[:, None], 3, axis=2)
        assert frame.dtype == np.uint8 and close_in_colour(frame, wanted)


def test_frames_may_change_their_size(tmp_path):
    sizes = [(48, 64), (32, 80)]
    for name, size in zip("ab", sizes):
        encode(tmp_path / f"{name}.h264", [quadrants(*size)] * 2, "libx264", form="h264")
    both = tmp_path / "both.h264"
    both.write_bytes(b"".join((tmp_path / f"{name}.h264").read_bytes() for name in "ab"))
    frames = list(open_video(both).frames())
    assert [frame.shape[:2] for frame in frames] == [size for size in sizes for _ in range(2)]
    assert all(close_in_colour(frame, quadrants(*frame.shape[:2])) for frame in frames)


@pytest.mark.parametrize("fault", ["cut off", "header"])
def test_a_file_with_a_wrong_length(tmp_path, fault, caplog):
    """All frames of the file are read, and a warning gives both numbers."""
    path = tmp_path / "long.mov"
    encode(path, SHIFTED, "mjpeg", "yuvj420p", options={"movflags": "faststart"})
    whole = list(open_video(path).frames())
    assert len(whole) == 6 and not caplog.records
    data = bytearray(path.read_bytes())
    if fault == "cut off":  # after the fourth picture
        starts = [at for at in range(len(data)) if data[at : at + 3] == b"\xff\xd8\xff"]
        assert len(starts) == 6
        data = data[: starts[4]]
    if fault == "header":
        at = data.index(b"stsz") + 12
        assert struct.unpack(">I", data[at : at + 4]) == (6,)
        sizes = data[at + 4 : at + 28]
        data[at : at + 28] = struct.pack(">I", 4) + sizes  # two fewer than the file has
    path.write_bytes(data)
    frames = list(open_video(path).frames())
    assert len(frames) == 4 and all(map(np.array_equal, frames, whole))
    (warning,) = caplog.records
    assert warning.getMessage() == f"{path}: states 6 frames but has 4; it may be truncated"


def test_frames_from_a_start(tmp_path):
    encode(tmp_path / "clip.mp4", SHIFTED, "libx264")
    (tmp_path / "folder").mkdir()
    for index, frame in enumerate(SHIFTED):
        Image.fromarray(frame).save(tmp_path / "folder" / f"{index}.png")
    for name in ("clip.mp4", "folder"):
        video = open_video(tmp_path / name)
        whole = list(video.frames())
        for start in (0, 1, 4, 6):
            later = list(video.frames(start))
            assert len(later) == 6 - start and all(map(np.array_equal, later, whole[start:]))


def test_fingerprints_identify_the_frames(tmp_path):
    """A copy has the same fingerprint; a file with another end or another image has not."""
    content = np.random.default_rng(0).bytes(3 << 20)
    encode(tmp_path / "clip.mp4", SHIFTED, "libx264")
    clip = (tmp_path / "clip.mp4").read_bytes()
    for name, end in (("a", content), ("b", content), ("c", content[:-1] + b"?"), ("d", content[:-1])):
        (tmp_path / f"{name}.mp4").write_bytes(clip + end)
        (tmp_path / name).mkdir()
        Image.fromarray(SHIFTED[0]).save(tmp_path / name / ("1.png" if name == "c" else "0.png"))
    Image.fromarray(SHIFTED[1]).save(tmp_path / "d" / "1.png")
    for suffix in ("", ".mp4"):
        one, copy, *others = (open_video(tmp_path / f"{name}{suffix}").fingerprint() for name in "abcd")
        assert one == copy and len({one, *others}) == 3


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1)])
def test_the_smallest_frames(tmp_path, size):
    path = tmp_path / "dot.mp4"
    write_video(path, 3, *size)
    frames = list(open_video(path).frames())
    assert [frame.shape for frame in frames] == [(size[0] + 1, size[1] + 1, 3)] * 3


def test_writer_leaves_nothing_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "a.mp4", 10, 48, 64) as writer:
        writer.write(quadrants(48, 64))
        raise RuntimeError
    with pytest.raises(ValueError), VideoWriter(tmp_path / "a.mp4", 10, 48, 64) as writer:
        writer.write(quadrants(48, 48))
    assert list(tmp_path.iterdir()) == []


def test_writer_names_a_path_it_cannot_write_to(tmp_path):
    with pytest.raises(UserError, match=r"missing/a\.mp4: cannot be written"):
        VideoWriter(tmp_path / "missing" / "a.mp4", 10, 48, 64)


def test_folder_in_natural_order(tmp_path):
    for number in (10, 2, 1):
        Image.fromarray(np.full((6, 8, 3), number, np.uint8)).save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "cover.png").write_bytes((tmp_path / "frame1.png").read_bytes())
    (tmp_path / ".hidden.png").write_text("no image")
    folder = open_video(str(tmp_path))
    assert (folder.height, folder.width, folder.length) == (6, 8, 4)
    assert [int(frame[0, 0, 0]) for frame in folder.frames()] == [1, 1, 2, 10]


def test_errors_are_one_line_that_names_the_file(tmp_path):
    def message(path):
        with pytest.raises(UserError) as caught:
            list(open_video(path).frames())
        text = str(caught.value)
        assert str(path) in text and "\n" not in text
        return text

    assert "no such" in message(tmp_path / "missing.mp4")
    text_file = tmp_path / "text.mp4"
    text_file.write_text("this is not a video\n" * 20)
    assert "not a video" in message(text_file)
    empty = tmp_path / "empty.mp4"
    empty.touch()
    assert "not a video" in message(empty)
    cut = tmp_path / "cut.mp4"
    write_video(cut)
    cut.write_bytes(cut.read_bytes()[:-200])
    message(cut)
    frames = tmp_path / "frames"
    frames.mkdir()
    assert "holds no images" in message(frames)
    image = frames / "00000.jpg"
    Image.fromarray(quadrants(48, 64)).save(image)
    image.write_bytes(image.read_bytes()[:-150])
    assert "00000.jpg" in message(frames)


def test_video_of_no_frames(tmp_path):
    path = tmp_path / "none.mp4"
    write_video(path, 0)
    with pytest.raises(UserError, match=r"none\.mp4"):
        open_video(path)
