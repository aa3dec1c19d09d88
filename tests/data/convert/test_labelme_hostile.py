"""LabelMe files that name other files, hold strange numbers or large pictures, or change a label."""

import base64
import io
import json
import os
import struct
import zlib

import pytest
from PIL import Image

from masktrack_jax.data.convert.convert import convert
from masktrack_jax.runtime.errors import UserError
from tests.helpers.convert import (
    HEIGHT,
    WIDTH,
    assert_masks,
    assert_nothing_left,
    converted,
    corners,
    rectangle,
    write_image,
)


def shape(label="cat", points=None, group=None, kind="polygon", **more):
    points = corners(1, 1, 5, 6) if points is None else points
    return {"label": label, "points": points, "group_id": group, "shape_type": kind} | more


def write(folder, name, shapes=None, **more):
    content = {
        "imagePath": f"{name}.jpg",
        "shapes": [shape()] if shapes is None else shapes,
        "imageData": None,
    }
    content |= {"imageHeight": HEIGHT, "imageWidth": WIDTH} | more
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(content))


@pytest.fixture
def clip(tmp_path):
    folder = tmp_path / "in" / "clip"
    write_image(folder / "1.jpg")
    write_image(tmp_path / "private.jpg")
    return folder


def refused(folder, tmp_path, match):
    with pytest.raises(UserError, match=match) as caught:
        convert("labelme", folder, tmp_path / "out")
    text = str(caught.value)
    assert "\n" not in text and len(text) < 600 and "1.json" in text
    assert_nothing_left(tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name",
    [
        "../../private.jpg",
        "..\\..\\private.jpg",
        "x/../../../private.jpg",
        "/etc/private.jpg",
        "\\\\server\\private.jpg",
        "C:\\private.jpg",
        "c:private.jpg",
        "link.jpg",
        "folder/private.jpg",
        "1.jpg\0",
        "\ud800.jpg",
        "",
        7,
        None,
        ["1.jpg"],
    ],
)
def test_no_picture_outside_of_the_input_is_read(clip, tmp_path, name):
    (clip / "link.jpg").symlink_to(tmp_path / "private.jpg")
    (clip / "folder").symlink_to(tmp_path)
    write(clip, "1", imagePath=name)
    refused(clip.parent, tmp_path, "`imagePath`")


@pytest.mark.parametrize("name", ["absent.jpg", "a" * 300, "folder.jpg", "pipe.jpg", "loop.jpg"])
def test_a_picture_that_is_no_file_is_refused(clip, tmp_path, name):
    write(clip, "1", imagePath=name)
    (clip / "loop.jpg").symlink_to("loop.jpg")
    (clip / "folder.jpg").mkdir()
    os.mkfifo(clip / "pipe.jpg")
    refused(clip, tmp_path, "its frame .* does not exist")


def test_a_picture_elsewhere_in_the_input_is_read(clip, tmp_path):
    write(tmp_path / "in" / "labels", "1", imagePath="..\\clip\\1.jpg")
    dataset, found, left_out = converted("labelme", tmp_path / "in", tmp_path / "out")
    assert dataset.videos[0].file_names == ("labels/1.jpg",)
    assert_masks(found["labels"]["cat"][0], [rectangle(1, 1, 5, 6)])
    assert left_out == {"folders without a json": 1}


def test_extensions_in_any_case(clip, tmp_path):
    write_image(clip / "2.JPG")
    write(clip, "2", imagePath="2.JPG")
    (clip / "2.json").rename(clip / "2.JSON")
    dataset, _, left_out = converted("labelme", clip, tmp_path / "out")
    assert dataset.videos[0].file_names == ("clip/2.JPG",)
    assert left_out == {"frames without a json, so not labelled": 1}


@pytest.mark.parametrize(
    "points",
    [
        [[10**400, 1], [5, 1], [5, 6]],
        [[float("nan"), 1], [5, 1], [5, 6]],
        [[float("-inf"), 1], [5, 1], [5, 6]],
        [[1e300, 1], [5, 1], [5, 6]],
        [["1", 1], [5, 1], [5, 6]],
        [[True, 1], [5, 1], [5, 6]],
        [[1], [5, 1], [5, 6]],
        [1, 2, 3, 4, 5, 6],
        {"x": 1},
    ],
)
@pytest.mark.parametrize("kind", ["polygon", "rectangle", "mask"])
def test_points_that_are_no_pixels_are_refused(clip, tmp_path, points, kind):
    write(clip, "1", [shape(points=points, kind=kind)])
    refused(clip, tmp_path, rf"shape 1 \({kind}\) cannot be drawn: `points` are not x, y pairs")


def bomb(side):
    """A PNG of 100 bytes that states side² pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )


def png(width, height):
    stream = io.BytesIO()
    Image.new("L", (width, height), 255).save(stream, "png")
    return stream.getvalue()


@pytest.mark.parametrize(
    "mask, match",
    [
        (base64.b64encode(bomb(12_000)).decode(), "its mask leaves the frame"),
        (base64.b64encode(bomb(10**6)).decode(), "cannot be read as an image"),
        (base64.b64encode(png(WIDTH, HEIGHT)).decode(), "its mask leaves the frame"),
        (base64.b64encode(png(5, 5)[:40]).decode(), "cannot be read as an image"),
        ("????", "its `mask` is not base64"),
        ("é", "its `mask` is not base64"),
        (7, "its `mask` is 7, not text in base64"),
        (None, "its `mask` is null, not text in base64"),
    ],
)
def test_masks_are_compared_with_the_frame_before_they_are_decoded(clip, tmp_path, mask, match):
    write(clip, "1", [shape(points=[[1, 1], [9, 9]], kind="mask", mask=mask)])
    refused(clip, tmp_path, rf"shape 1 \(mask\) cannot be drawn .*{match}")


@pytest.mark.parametrize(
    "change, match",
    [
        ({"imageHeight": 10**9, "imageWidth": 10**9}, "states an image of 1000000000x1000000000"),
        ({"imageHeight": 10**400}, "states an image of"),
        ({"imageHeight": str(HEIGHT)}, "has `imageHeight` '20' .text."),
        ({"imageWidth": float("nan")}, "has `imageHeight` 20 and `imageWidth` nan"),
        ({"shapes": [shape(group=[1])]}, r"shape 1 has `group_id` \[1\]"),
        ({"shapes": [shape(label=3)]}, "shape 1 has `label` 3, expected a name"),
        ({"shapes": [shape(label=" ")]}, "shape 1 has `label` ' ', expected a name"),
        ({"shapes": [[]]}, "shape 1 has no `label` and `points`"),
    ],
)
def test_values_of_a_wrong_type_are_refused(clip, tmp_path, change, match):
    write(clip, "1", **change)
    refused(clip, tmp_path, match)


def test_whole_floats_are_sizes_and_null_is_none(clip, tmp_path):
    write(clip, "1", imageHeight=float(HEIGHT), imageWidth=None, imageData="?" * 1000)
    converted("labelme", clip, tmp_path / "out")


def test_groups_are_one_whether_they_are_numbers_or_text(clip, tmp_path):
    write_image(clip / "2.jpg")
    write(clip, "1", [shape(group=3)])
    write(clip, "2", [shape(group="3"), shape(group=3.0, points=corners(10, 1, 12, 6))])
    _, found, _ = converted("labelme", clip, tmp_path / "out")
    (cat,) = found["clip"]["cat"]
    assert_masks(cat, [rectangle(1, 1, 5, 6), rectangle(1, 1, 5, 6) | rectangle(10, 1, 12, 6)])


def test_parts_of_an_object_are_joined_with_a_line(clip, tmp_path):
    write(clip, "1", [shape(group=1), shape(group=1, points=corners(10, 1, 12, 6))])
    done = convert("labelme", clip, tmp_path / "out")
    assert done.notes == {"shapes joined with another of their object in their frame": 1}


def test_an_object_whose_label_changes_is_noted(clip, tmp_path):
    write_image(clip / "2.jpg")
    write(clip, "1", [shape("cow", group=1), shape("ball", group=2), shape("goal", group=2)])
    write(clip, "2", [shape("Cow", group=1)])
    done = convert("labelme", clip, tmp_path / "out")
    assert done.notes == {"objects whose label changes ('cow', 'Cow'), taken as two": 1}


def test_polygons_under_three_points_are_left_out(clip, tmp_path):
    write(clip, "1", [shape(group=1), shape(group=1, points=[[1, 1], [9, 9]]), shape("dog", points=[])])
    done = convert("labelme", clip, tmp_path / "out")
    assert done.left_out == {"polygons with under 3 points": 2}
    assert (done.counts.tracks, done.counts.categories) == (1, 1)


def test_rectangles_of_four_corners(clip, tmp_path):
    write(clip, "1", [shape(points=corners(2, 3, 9, 8), kind="rectangle")])
    _, found, _ = converted("labelme", clip, tmp_path / "out")
    assert_masks(found["clip"]["cat"][0], [rectangle(2, 3, 9, 8)])
