"""Frames of CVAT exports: matched by number, read from the video itself, and several exports in one set."""

import numpy as np
import pytest

from masktrack_jax.data.convert import __main__ as command
from masktrack_jax.data.convert.convert import convert
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.video import files
from tests.helpers.convert import HEIGHT, WIDTH, assert_masks, converted, rectangle, write_image
from tests.helpers.videos import write_video


def export(folder, size=4, head="", label="car", keys=(0, 2, 3), start=0, step=1):
    """An export with one box, which moves by 2 pixels a frame and has key frames at some places."""
    boxes = "".join(
        f'<box frame="{start + step * place}" outside="0" xtl="{1 + 2 * place}" ytl="2" '
        f'xbr="{9 + 2 * place}" ybr="8"/>'
        for place in keys
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "annotations.xml").write_text(
        f"<annotations><meta><task><size>{size}</size><start_frame>{start}</start_frame>"
        f"<frame_filter>step={step}</frame_filter>{head}</task></meta>"
        f'<track id="0" label="{label}">{boxes}</track></annotations>'
    )
    return folder


def box(place):
    return rectangle(1 + 2 * place, 2, 9 + 2 * place, 8)


def images(folder, names):
    for name in names:
        write_image(folder / name)


@pytest.mark.parametrize(
    "start, step, numbers", [(0, 1, (0, 2, 3)), (10, 1, (0, 2, 3)), (10, 5, (10, 20, 25))]
)
def test_a_deleted_frame_is_left_out(tmp_path, start, step, numbers):
    """The numbers count places in the task or, in the last case, frames of the video."""
    folder = export(tmp_path / "clip", start=start, step=step)
    images(folder / "images", [f"frame_{number:06d}.PNG" for number in numbers])
    dataset, found, left_out = converted("cvat", folder, tmp_path / "out")
    assert len(dataset.videos[0].file_names) == 3
    assert_masks(found["clip"]["car"][0], [box(0), box(2), box(3)])
    assert left_out == {"frames without an image": 1}


def test_a_key_frame_without_an_image_still_moves_the_box(tmp_path):
    folder = export(tmp_path / "clip", size=5, keys=(0, 2, 4))
    images(folder / "images", ["0.png", "1.png", "3.png"])
    _, found, left_out = converted("cvat", folder, tmp_path / "out")
    assert_masks(found["clip"]["car"][0], [box(0), box(1), box(3)])
    assert left_out == {"frames without an image": 2, "shapes on frames without an image": 2}


def test_images_of_other_frames_are_left_out(tmp_path):
    folder = export(tmp_path / "clip", start=3)
    images(folder / "images", [f"{number}.png" for number in range(9)])
    dataset, _, left_out = converted("cvat", folder, tmp_path / "out")
    assert dataset.videos[0].file_names == tuple(f"clip/{number}.png" for number in (3, 4, 5, 6))
    assert left_out == {"images that are not frames of the task": 5}


@pytest.mark.parametrize(
    "names, match",
    [
        (["0.png", "2.png", "3.png", "4.png"], "has frames 0 to 3 but .* holds 4 images, numbered 0 to 4"),
        (["1.png", "2.png", "3.png", "4.png"], "has frames 0 to 3 but .* holds 4 images, numbered 1 to 4"),
        (["a.png", "b.png", "c.png", "d.png"], "is not named by its frame's number"),
        (["1.png", "1.jpg"], "has the same number as 1"),
        (["0.png", "0_mask1.png", "1.png"], "has the same number as"),
        ([], "has frames 0 to 3, but .* has none of them"),
    ],
)
def test_images_are_never_matched_by_their_order_alone(tmp_path, names, match):
    folder = export(tmp_path / "clip")
    (folder / "images").mkdir()
    images(folder / "images", names)
    with pytest.raises(UserError, match=match):
        convert("cvat", folder, tmp_path / "out")


def test_frames_of_the_video_itself(tmp_path, capsys):
    folder = export(tmp_path / "clip", start=2, step=2, size=3, keys=(0, 1, 2))
    video = tmp_path / "videos" / "clip.mp4"
    video.parent.mkdir()
    write_video(video, count=6, height=HEIGHT, width=WIDTH)
    arguments = ["--from", "cvat", "--input", str(folder), "--images", str(video)]
    command.main([*arguments, "--output", str(tmp_path / "out")])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "left out: 1 frames without an image"  # frame 6 of a video of 6 frames
    assert printed[1] == "left out: 1 shapes on frames without an image"
    assert printed[2].startswith("written: 1 videos, 2 frames, 1 tracks, 2 objects, 1 categories")
    names = sorted(path.name for path in (tmp_path / "out" / "JPEGImages" / "clip").iterdir())
    assert names == ["000002.jpg", "000004.jpg"]
    for given in (video, video.parent):
        with pytest.raises(UserError, match=r"--link: the frames of .*clip\.mp4 are no files"):
            command.main([*arguments[:-1], str(given), "--output", str(tmp_path / "linked"), "--link"])


class Stored:
    """A video that states `length` frames and has three."""

    def __init__(self, length):
        self.length = length

    def frames(self):
        return iter([np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 3)


def test_frames_of_a_video_that_cannot_be_decoded_are_noted(tmp_path, monkeypatch):
    folder, video = export(tmp_path / "clip", size=3, keys=(0,)), tmp_path / "clip.mp4"
    video.touch()
    for length, expected in ((None, []), (3, []), (4, [1])):
        out = tmp_path / str(length)
        monkeypatch.setattr(files, "open_video", lambda path, length=length: Stored(length))
        done = convert("cvat", folder, out, images=video)
        assert [*done.notes.values()] == expected and done.counts.frames == 3


def test_a_video_that_is_too_short_is_refused(tmp_path, monkeypatch):
    folder, video = export(tmp_path / "clip", start=10), tmp_path / "clip.mp4"
    video.touch()
    monkeypatch.setattr(files, "open_video", lambda path: Stored(3))
    with pytest.raises(UserError, match=r"has frames 10 to 13, but .*clip\.mp4 has none of them"):
        convert("cvat", folder, tmp_path / "out", images=video)


def test_several_exports_are_one_set(tmp_path):
    for name, label in (("day", "truck"), ("night", "bus")):
        folder = export(tmp_path / name, label=label)
        images(folder / "images", [f"{number}.png" for number in range(4)])
    for given in ([tmp_path / "night", tmp_path / "day"], tmp_path):
        dataset, found, _ = converted("cvat", given, tmp_path / "out" / str(type(given).__name__))
        assert [(x.id, x.name) for x in dataset.categories] == [(1, "bus"), (2, "truck")]
        assert sorted(found) == ["day", "night"]
        assert_masks(found["night"]["bus"][0], [box(place) for place in range(4)])


def test_images_of_several_exports(tmp_path):
    exports = [export(tmp_path / name) for name in ("day", "night")]
    for name in ("day", "night"):
        images(tmp_path / "all" / name, [f"{number}.png" for number in range(4)])
    both = [tmp_path / "all" / name for name in ("day", "night")]
    repeated = [
        word for export, given in zip(exports, both) for word in ("--input", export, "--images", given)
    ]
    command.main(["--from", "cvat", *map(str, repeated), "--output", str(tmp_path / "out" / "repeated")])
    assert (tmp_path / "out" / "repeated" / "JPEGImages" / "day" / "3.png").exists()
    for place, given in enumerate([tmp_path / "all", both]):
        dataset, _, _ = converted("cvat", exports, tmp_path / "out" / str(place), images=given)
        assert [video.file_names[0] for video in dataset.videos] == ["day/0.png", "night/0.png"]
    with pytest.raises(UserError, match="is a frame of two videos, 'day' and 'night'"):
        convert("cvat", exports, tmp_path / "out" / "x", images=both[0])
    with pytest.raises(UserError, match="--images: 2 paths for 1 inputs"):
        convert("cvat", exports[0], tmp_path / "out" / "x", images=both)
    with pytest.raises(UserError, match="two inputs have a video 'day'"):
        convert("cvat", [exports[0]] * 2, tmp_path / "out" / "x", images=both[0])


TRACK = '<annotations><track label="a">'


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE a [<!ENTITY a "aa"><!ENTITY b "&a;&a;&a;">]><annotations>&b;</annotations>',
        '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotations><version>&a;</version></annotations>',
        "<annotations>&undefined;</annotations>",
        "<a>" * 100_000,
        f"<annotations><meta><task><size>{'9' * 5000}</size></task></meta></annotations>",
        "<annotations><meta><task><size>999999999999</size></task></meta></annotations>",
        "<annotations><meta><task><frame_filter>step=0</frame_filter></task></meta></annotations>",
        f'{TRACK}<box frame="0" xtl="1e400" ytl="1" xbr="5" ybr="5"/></track></annotations>',
        f'{TRACK}<box frame="0" xtl="-1e300" ytl="1" xbr="5" ybr="5"/></track></annotations>',
        f'{TRACK}<polygon frame="0" points="1,2,3;4,5,6"/></track></annotations>',
        f'{TRACK}<mask frame="0" left="0" top="0" width="2" height="2" '
        'rle="9223372036854775807,9223372036854775807,6"/></track></annotations>',
        f'{TRACK}<mask frame="0" left="0" top="0" width="2" height="2" '
        f'rle="{"9" * 30}"/></track></annotations>',
        f'{TRACK}<box frame="{"9" * 5000}"/></track></annotations>',
    ],
)
def test_hostile_xml_is_one_line(tmp_path, text):
    images(tmp_path / "clip" / "images", ["0.png"])
    (tmp_path / "clip" / "annotations.xml").write_text(text)
    with pytest.raises(UserError) as caught:
        convert("cvat", tmp_path / "clip", tmp_path / "out")
    assert "annotations.xml" in str(caught.value) and len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)
