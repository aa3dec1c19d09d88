"""The writer of converted data sets: records match the masks, are reproducible and in order."""

import filecmp
import json

import pytest

from masktrack_jax.data.convert.convert import convert
from masktrack_jax.data.convert.source import Clip, ObjectTrack, Report, Source
from masktrack_jax.data.convert.writer import write
from masktrack_jax.runtime.errors import UserError
from tests.helpers.convert import HEIGHT, WIDTH, converted, write_image


def test_boxes_and_areas_are_the_masks(youtube_vos, tmp_path):
    path, *_ = convert("youtube-vos", youtube_vos, tmp_path / "out")
    ape, zebra = json.loads(path.read_text())["annotations"]
    assert (ape["bboxes"], ape["areas"]) == ([None, [15, 10, 10, 8]], [None, 80])
    assert (zebra["bboxes"], zebra["areas"]) == ([[2, 3, 6, 6], [4, 3, 6, 6]], [36, 36])
    assert (ape["length"], ape["height"], ape["width"], ape["iscrowd"]) == (2, HEIGHT, WIDTH, 0)


def test_the_same_input_gives_the_same_bytes(youtube_vos, tmp_path):
    for name in ("one", "two"):
        convert("youtube-vos", youtube_vos, tmp_path / name)
    assert filecmp.cmp(
        tmp_path / "one" / "instances.json", tmp_path / "two" / "instances.json", shallow=False
    )


def test_frames_can_be_links(youtube_vos, tmp_path):
    converted("youtube-vos", youtube_vos, tmp_path / "out", link=True)
    linked = tmp_path / "out" / "JPEGImages" / "cafe" / "00005.jpg"
    assert linked.is_symlink() and linked.resolve() == youtube_vos / "JPEGImages" / "cafe" / "00005.jpg"


def test_links_among_the_frames_are_noted(youtube_vos, tmp_path):
    frame = youtube_vos / "JPEGImages" / "cafe" / "00005.jpg"
    frame.rename(tmp_path / "elsewhere.jpg")
    frame.symlink_to(tmp_path / "elsewhere.jpg")
    done = convert("youtube-vos", youtube_vos, tmp_path / "out")
    assert done.notes == {"frames that are links, read where they lead": 1}
    copied = tmp_path / "out" / "JPEGImages" / "cafe" / "00005.jpg"
    assert not copied.is_symlink() and copied.read_bytes() == frame.read_bytes()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, UserError("x"), RuntimeError])
def test_nothing_is_left_when_writing_stops(tmp_path, stop):
    write_image(tmp_path / "1.jpg")

    def tracks(height, width):
        raise stop

    good = Clip("a", (("1.jpg", tmp_path / "1.jpg"),), lambda height, width: [ObjectTrack("x", [None])])
    bad = Clip("b", (("1.jpg", tmp_path / "1.jpg"),), tracks)
    with pytest.raises(stop if isinstance(stop, type) else UserError):
        write(Source([(1, "x")], [good, bad]), tmp_path / "out", "coco", Report())
    assert [path.name for path in tmp_path.iterdir()] == ["1.jpg"]


@pytest.mark.parametrize("name", ["", ".", "/a", "a/../b", "a\\b", "C:a", "a\0", "a\nb", "\udcff"])
def test_names_that_no_folder_can_have_are_refused(tmp_path, name):
    write_image(tmp_path / "1.jpg")
    clip = Clip(name, (("1.jpg", tmp_path / "1.jpg"),), lambda height, width: [])
    with pytest.raises(UserError, match="cannot be the name of a video"):
        write(Source([], [clip]), tmp_path / "out", "coco", Report())
