"""DAVIS and YouTube-VOS, the writer and the command: masks drawn here come back pixel by pixel."""

import filecmp
import json

import numpy as np
import pytest

from masktrack_jax.data.convert import __main__ as command
from masktrack_jax.data.convert.__main__ import convert
from masktrack_jax.data.convert.writer import in_order
from masktrack_jax.runtime.errors import UserError
from tests.helpers.convert import (
    HEIGHT,
    WIDTH,
    assert_masks,
    assert_nothing_left,
    converted,
    rectangle,
    write_image,
    write_palette,
)


@pytest.fixture
def youtube_vos(tmp_path):
    """One video, frames 0 to 6, labelled at 0 and 5; object 1 in both, 2 in the second alone."""
    root = tmp_path / "vos"
    for frame in range(7):
        write_image(root / "JPEGImages" / "cafe" / f"{frame:05d}.jpg", shade=30 * frame)
    first = rectangle(2, 3, 8, 9).astype(int)
    second = 3 * rectangle(4, 3, 10, 9) + 2 * rectangle(15, 10, 25, 18)
    second[0, 0] = 255
    write_palette(root / "Annotations" / "cafe" / "00000.png", 3 * first)
    write_palette(root / "Annotations" / "cafe" / "00005.png", second)
    objects = {"3": {"category": "zebra", "frames": ["00000"]}, "2": {"category": "ape", "frames": ["00005"]}}
    (root / "meta.json").write_text(json.dumps({"videos": {"cafe": {"objects": objects}}}))
    return root


def test_youtube_vos_keeps_the_labelled_frames(youtube_vos, tmp_path):
    dataset, found, left_out = converted("youtube-vos", youtube_vos, tmp_path / "out")
    assert [(x.id, x.name) for x in dataset.categories] == [(1, "ape"), (2, "zebra")]
    (video,) = dataset.videos
    assert video.file_names == ("cafe/00000.jpg", "cafe/00005.jpg")
    assert_masks(found["cafe"]["zebra"][0], [rectangle(2, 3, 8, 9), rectangle(4, 3, 10, 9)])
    assert_masks(found["cafe"]["ape"][0], [None, rectangle(15, 10, 25, 18)])
    assert left_out == {
        "frames without a palette PNG, so not labelled": 5,
        "videos with void pixels (255), taken as background": 1,
    }
    copied, source = (root / "JPEGImages" / "cafe" / "00005.jpg" for root in (tmp_path / "out", youtube_vos))
    assert copied.read_bytes() == source.read_bytes() and not copied.is_symlink()


def test_boxes_and_areas_are_the_masks(youtube_vos, tmp_path):
    path, _ = convert("youtube-vos", youtube_vos, tmp_path / "out")
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


def test_davis_has_one_category_and_a_folder_of_its_resolution(tmp_path):
    root = tmp_path / "DAVIS"
    for video in ("bear", "dog10", "dog9"):
        write_image(root / "JPEGImages" / "480p" / video / "00000.jpg")
    write_palette(root / "Annotations/480p/bear/00000.png", 255 * rectangle(1, 1, 9, 9), mode="L")
    write_palette(
        root / "Annotations/480p/dog9/00000.png", rectangle(1, 1, 9, 9) + 2 * rectangle(10, 1, 12, 9)
    )
    write_palette(root / "Annotations/480p/dog10/00000.png", np.zeros((HEIGHT, WIDTH)))
    dataset, found, left_out = converted("davis", root, tmp_path / "out")
    assert [video.name for video in dataset.videos] == ["bear", "dog9", "dog10"]
    assert_masks(found["bear"]["object"][0], [rectangle(1, 1, 9, 9)])  # DAVIS 2016 draws it white
    one, two = found["dog9"]["object"]
    assert_masks(one, [rectangle(1, 1, 9, 9)])
    assert_masks(two, [rectangle(10, 1, 12, 9)])
    assert found["dog10"] == {} and left_out == {}
    (tmp_path / "val.txt").write_text("dog10\nbear\n")
    dataset, _, _ = converted("davis", root, tmp_path / "chosen", videos=tmp_path / "val.txt")
    assert [video.name for video in dataset.videos] == ["bear", "dog10"]


def test_bad_palette_input_is_one_line(youtube_vos, tmp_path):
    png = youtube_vos / "Annotations" / "cafe" / "00005.png"
    whole = png.read_bytes()

    def fails(match):
        with pytest.raises(UserError, match=match) as caught:
            convert("youtube-vos", youtube_vos, tmp_path / "out")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()
        assert_nothing_left(tmp_path)

    write_image(png)
    fails(r"00005\.png: is RGB, not a palette PNG")
    png.write_bytes(whole[:60])
    fails(r"00005\.png: cannot be read as an image")
    write_palette(png, np.ones((HEIGHT, WIDTH - 1)))
    fails(r"00005\.png: is 20x29 \(height x width\), its frame 20x30")
    write_palette(png, 7 * rectangle(1, 1, 5, 5))
    fails(r"cafe: object 7 has no category")
    png.write_bytes(whole)
    frame = youtube_vos / "JPEGImages" / "cafe" / "00005.jpg"
    frame.write_bytes(frame.read_bytes()[:-200])
    fails(r"00005\.jpg: cannot be read as an image")
    write_image(frame, size=(10, 10))
    fails(r"00005\.jpg: is 10x10 .* the frames of a video must have one size")
    frame.unlink()
    fails(r"00005\.png: has no frame")
    (youtube_vos / "meta.json").write_text('{"videos": {"cafe": {"objects": {"1": {}}}}}')
    fails(r"meta\.json: does not state the category")
    png.unlink()
    (youtube_vos / "Annotations" / "cafe" / "00000.png").unlink()
    fails(r"vos: holds no Annotations")


def test_command(youtube_vos, tmp_path, capsys):
    out = tmp_path / "out"
    command.main(["--from", "youtube-vos", "--input", str(youtube_vos), "--output", str(out), "--link"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "left out: 5 frames without a palette PNG, so not labelled"
    assert printed[-1] == str(out / "instances.json")
    assert (out / "JPEGImages" / "cafe" / "00000.jpg").is_symlink()


def test_bad_requests_are_one_line(youtube_vos, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "list.txt").write_text("cafe\nother\n")
    (tmp_path / "empty").mkdir()
    for arguments, options, match in [
        (("davis", youtube_vos, tmp_path / "full"), {}, "exists; remove it"),
        (("davis", youtube_vos, tmp_path / "out"), {"frames": 2}, "--frames: not for --from davis"),
        (("coco", youtube_vos / "meta.json", tmp_path / "out"), {}, "--images: --from coco needs it"),
        (("davis", youtube_vos, tmp_path / "out"), {"videos": tmp_path / "list.txt"}, "other is not among"),
        (("davis", youtube_vos, tmp_path / "out"), {"videos": tmp_path / "none.txt"}, "cannot be read"),
        (("labelme", tmp_path / "empty", tmp_path / "out"), {}, "nothing to convert"),
        (("mots", tmp_path / "empty", tmp_path / "out"), {}, "check --input"),
        (("cvat", tmp_path / "empty", tmp_path / "out"), {}, "cannot be read"),
    ]:
        with pytest.raises(UserError, match=match) as caught:
            convert(*arguments, **options)
        assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file"]


def test_order_is_as_people_count():
    names = ["f10.jpg", "f9.jpg", "a", "f09.jpg", "f2_b", "f2_a", "10", "9", ""]
    assert in_order(names) == ["", "9", "10", "a", "f2_a", "f2_b", "f09.jpg", "f9.jpg", "f10.jpg"]
