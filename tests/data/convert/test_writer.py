"""The writer of converted data sets: records match the masks, are reproducible and in order."""

import filecmp
import json

from masktrack_jax.data.convert.convert import convert
from masktrack_jax.data.convert.source import in_order
from tests.helpers.convert import HEIGHT, WIDTH, converted


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


def test_order_is_as_people_count():
    names = ["f10.jpg", "f9.jpg", "a", "f09.jpg", "f2_b", "f2_a", "10", "9", ""]
    assert in_order(names) == ["", "9", "10", "a", "f2_a", "f2_b", "f09.jpg", "f9.jpg", "f10.jpg"]
