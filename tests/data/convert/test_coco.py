"""The converter from COCO: masks drawn here are converted exactly and pass the linter."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

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


def coco_content():
    right, crowd = rectangle(20, 4, 28, 16), rectangle(0, 15, 30, 20)
    runs = [int(x) for x in np.diff(np.flatnonzero(np.diff(np.r_[2, crowd.ravel(order="F"), 2])))]
    runs = runs if not crowd[0, 0] else [0, *runs]
    polygon = [float(value) for point in corners(3, 4, 12, 10) for value in point]
    rle = coco_mask.encode(np.asfortranarray(right, np.uint8))
    shape = {"height": HEIGHT, "width": WIDTH}
    return {
        "images": [
            {"id": 31, "file_name": "sub/b.png", **shape},
            {"id": 4, "file_name": "a.jpg", **shape},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
        "annotations": [
            {"id": 1, "image_id": 31, "category_id": 3, "segmentation": [polygon]},
            {
                "id": 2,
                "image_id": 31,
                "category_id": 18,
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()},
            },
            {
                "id": 3,
                "image_id": 31,
                "category_id": 3,
                "iscrowd": 1,
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": runs},
            },
            {"id": 4, "image_id": 4, "category_id": 3, "bbox": [0, 0, 3, 3]},
        ],
    }


@pytest.fixture
def coco(tmp_path):
    write_image(tmp_path / "images" / "sub" / "b.png", shade=90)
    write_image(tmp_path / "images" / "a.jpg")
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(coco_content()))
    return path


@pytest.mark.parametrize("options, length", [({}, 1), ({"frames": 3}, 3)])
def test_coco_images_become_still_clips(coco, tmp_path, options, length):
    dataset, found, left_out = converted(
        "coco", coco, tmp_path / "out", images=tmp_path / "images", **options
    )
    assert [(x.id, x.name) for x in dataset.categories] == [(18, "dog"), (3, "car")]
    first, second = dataset.videos
    assert first.file_names == tuple(f"sub/b/{frame:05d}.png" for frame in range(length))
    assert second.file_names == tuple(f"a/{frame:05d}.jpg" for frame in range(length))
    car, crowd = found["sub/b"]["car"]
    assert_masks(car, [rectangle(3, 4, 12, 10)] * length)
    assert_masks(crowd, [rectangle(0, 15, 30, 20)] * length)
    assert_masks(found["sub/b"]["dog"][0], [rectangle(20, 4, 28, 16)] * length)
    assert [x.iscrowd for x in dataset.objects_of(first)] == [False, False, True]
    assert found["a"] == {} and left_out == {"annotations without a segmentation": 1}


def test_coco_images_of_one_stem_stay_apart(coco, tmp_path):
    content = coco_content()
    write_image(tmp_path / "images" / "a.png")
    content["images"][0]["file_name"] = "a.png"
    coco.write_text(json.dumps(content))
    dataset, found, _ = converted("coco", coco, tmp_path / "out", images=tmp_path / "images")
    assert [video.name for video in dataset.videos] == ["a.png", "a.jpg"]
    assert len(found["a.png"]["car"]) == 2 and found["a.jpg"] == {}


@pytest.mark.parametrize(
    "change, match",
    [
        (
            lambda x: x["annotations"][0].update(image_id=5),
            "annotation 1 has `image_id` 5, which is not among the images",
        ),
        (
            lambda x: x["annotations"][0].update(category_id=5),
            "annotation 1 has `category_id` 5, which is not among the categories",
        ),
        (
            lambda x: x["annotations"][0].update(segmentation=[[1, 2, 3, 4, 5, 6, 7]]),
            "annotation 1: .* polygon",
        ),
        (lambda x: x["annotations"][1]["segmentation"].update(counts="0"), "annotation 2: .* cover 0 pixels"),
        (lambda x: x["images"][0].update(height=21), "image 31 is stated as 21x30"),
        (lambda x: x["images"][0].update(file_name="c.jpg"), r"c\.jpg: no such image"),
        (lambda x: x["images"][0].update(id=4), "image 4 appears twice"),
        (lambda x: x["images"][0].update(file_name="../a.jpg"), "image 31 has `file_name` .* leads out of"),
        (lambda x: x["images"][0].pop("file_name"), "image 31 has no `file_name`"),
        (lambda x: x["images"][0].update(file_name="."), "image 31 has `file_name` '.', expected"),
        (lambda x: x.pop("categories"), "has no list `categories`"),
    ],
)
def test_bad_coco_is_one_line(coco, tmp_path, change, match):
    content = coco_content()
    change(content)
    coco.write_text(json.dumps(content))
    with pytest.raises(UserError, match=match) as caught:
        convert("coco", coco, tmp_path / "out", images=tmp_path / "images")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    assert_nothing_left(tmp_path)
