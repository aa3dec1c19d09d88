"""The converter from MOTS: masks drawn here are converted exactly and pass the linter."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from masktrack_jax.data.convert.convert import convert
from masktrack_jax.runtime.errors import UserError
from tests.helpers.convert import assert_masks, assert_nothing_left, converted, rectangle, write_image


def mots_line(frame, object_id, number, mask):
    counts = coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
    return f"{frame} {object_id} {number} {mask.shape[0]} {mask.shape[1]} {counts}\n"


def mots_lines(first):
    return [
        mots_line(first, 2001, 2, rectangle(1, 1, 6, 12)),
        mots_line(first, 10000, 10, rectangle(20, 0, 30, 5)),
        mots_line(first + 2, 1001, 1, rectangle(10, 10, 25, 18)),
        mots_line(first + 2, 2001, 2, rectangle(3, 1, 8, 12)),
    ]


@pytest.mark.parametrize("layout", ["kitti", "challenge"])
def test_mots_text_files(tmp_path, layout):
    root, options = tmp_path / "mots", {}
    first = 0 if layout == "kitti" else 1  # KITTI counts frames from 0, MOTSChallenge from 1
    if layout == "kitti":
        text, frames, options = (
            root / "0002.txt",
            tmp_path / "image_02" / "0002",
            {"images": tmp_path / "image_02"},
        )
    else:
        text, frames = root / "0002" / "gt" / "gt.txt", root / "0002" / "img1"
    for frame in range(3):
        write_image(frames / f"{first + frame:06d}.png", shade=frame)
    text.parent.mkdir(parents=True, exist_ok=True)
    text.write_text("".join(mots_lines(first)))
    dataset, found, left_out = converted("mots", root, tmp_path / "out", **options)
    assert [(x.id, x.name) for x in dataset.categories] == [(1, "car"), (2, "pedestrian")]
    assert dataset.videos[0].file_names[0] == f"0002/{first:06d}.png"
    assert_masks(found["0002"]["pedestrian"][0], [rectangle(1, 1, 6, 12), None, rectangle(3, 1, 8, 12)])
    assert_masks(found["0002"]["car"][0], [None, None, rectangle(10, 10, 25, 18)])
    assert len(found["0002"]["car"]) == len(found["0002"]["pedestrian"]) == 1
    assert left_out == {"regions to ignore (class 10)": 1}


def test_mots_masks_without_a_pixel_are_absent(tmp_path):
    for frame in range(3):
        write_image(tmp_path / "images" / "0002" / f"{frame:06d}.png")
    empty = mots_line(1, 2001, 2, rectangle(0, 0, 0, 0)) + mots_line(1, 2002, 2, rectangle(0, 0, 0, 0))
    (tmp_path / "0002.txt").write_text("".join(mots_lines(0)) + empty)
    _, found, left_out = converted(
        "mots", tmp_path / "0002.txt", tmp_path / "out", images=tmp_path / "images"
    )
    (pedestrian,) = found["0002"]["pedestrian"]
    assert pedestrian[1] is None and pedestrian[2] is not None
    assert left_out["objects without a pixel in any frame"] == 1
    assert left_out["masks without a pixel"] == 2


@pytest.mark.parametrize(
    "line, match",
    [
        ("0 1001 1 20 30\n", r"0002\.txt: line 5: is not `frame id class"),
        ("1,1,10,10,20,20,1,1,1.0\n", r"line 5: .* it holds boxes \(MOT\)"),
        ("0 x 1 20 30 abc\n", r"0002\.txt: line 5: is not `frame id class"),
        (mots_line(2, 1001, 1, rectangle(1, 1, 2, 2)), r"line 5: object 1001 appears twice in frame 2"),
        (mots_line(1, 1001, 2, rectangle(1, 1, 2, 2)), r"line 5: object 1001 was of class 1, now of 2"),
        (mots_line(7, 1001, 1, rectangle(1, 1, 2, 2)), r"line 5: frame 7 has no image"),
        (mots_line(1, 1001, 1, rectangle(1, 1, 2, 2).T), r"line 5: is not a mask \(RLE of size \[30, 20\]"),
        ("1 1001 1 20 30 1\n", r"line 5: is not a mask \(its runs cover"),
    ],
)
def test_bad_mots_is_one_line(tmp_path, line, match):
    for frame in range(3):
        write_image(tmp_path / "images" / "0002" / f"{frame:06d}.png")
    (tmp_path / "0002.txt").write_text("".join(mots_lines(0)) + line)
    with pytest.raises(UserError, match=match) as caught:
        convert("mots", tmp_path / "0002.txt", tmp_path / "out", images=tmp_path / "images")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    assert_nothing_left(tmp_path)
