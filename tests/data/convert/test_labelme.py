"""The converter from LabelMe: masks drawn here are converted exactly and pass the linter."""

import base64
import io
import json

import numpy as np
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


def labelme(name, shapes, **more):
    content = {"version": "5.4.1", "imagePath": name, "imageHeight": HEIGHT, "imageWidth": WIDTH}
    return json.dumps(content | {"shapes": shapes} | more)


def shape(label, points, group=None, kind="polygon", **more):
    return {"label": label, "points": points, "group_id": group, "shape_type": kind} | more


def labelme_shapes():
    """Shapes of two labelled frames."""
    part = np.zeros((4, 6), np.uint8)
    part[1:3, 2:5] = 255
    png = io.BytesIO()
    Image.fromarray(part).save(png, "PNG")
    mask = base64.b64encode(png.getvalue()).decode()
    first = [
        shape("cat", corners(1, 1, 5, 6), group=1),
        shape("cat", corners(10, 1, 14, 6), group=1),
        shape("cat", [[28, 18], [20, 10]], group=2, kind="rectangle"),
        shape("tree", [[3, 10], [8, 13]], kind="mask", mask=mask),
        shape("cat", [[1, 1]], group=1, kind="point"),
    ]
    return first, [shape("cat", corners(2, 1, 6, 6), group=1)]


@pytest.fixture
def labelme_folder(tmp_path):
    """Frames 1, 2, 9 and 10 of a video: labelled 2 and 10, empty 9."""
    folder = tmp_path / "in" / "park"
    for frame in (1, 2, 9, 10):
        write_image(folder / f"{frame}.jpg", shade=frame)
    first, second = labelme_shapes()
    (folder / "2.json").write_text(labelme("2.jpg", first))
    (folder / "9.json").write_text(labelme("9.jpg", []))
    (folder / "10.json").write_text(labelme("10.jpg", second))
    return folder


@pytest.mark.parametrize("whole", [True, False])
def test_labelme_polygons_with_group_ids(labelme_folder, tmp_path, whole):
    given = labelme_folder.parent if whole else labelme_folder
    dataset, found, left_out = converted("labelme", given, tmp_path / "out")
    assert dataset.videos[0].file_names == ("park/2.jpg", "park/9.jpg", "park/10.jpg")
    one, two = found["park"]["cat"]
    assert_masks(one, [rectangle(1, 1, 5, 6) | rectangle(10, 1, 14, 6), None, rectangle(2, 1, 6, 6)])
    assert_masks(two, [rectangle(20, 10, 28, 18), None, None])
    assert_masks(found["park"]["tree"][0], [rectangle(5, 11, 8, 13), None, None])
    assert left_out == {
        "frames without a json, so not labelled": 1,
        "shapes that are not polygons, rectangles or masks ('point')": 1,
    }


@pytest.mark.parametrize(
    "text, match",
    [
        ("{", "is not valid JSON"),
        ("{}", "has no `imagePath`, as LabelMe files have; leave the file out"),
        (labelme("3.jpg", []), r"its frame .*3\.jpg does not exist"),
        (labelme("2.jpg", [], imageHeight=7), r"2\.json: states an image of 7x30 .* but .*2\.jpg is 20x30"),
        (labelme("2.jpg", [{"label": "cat"}]), "shape 1 has no `label` and `points`"),
        (
            labelme("2.jpg", [shape("cat", corners(1, 1, 2, 2)), shape("cat", corners(3, 3, 4, 4))]),
            "two shapes 'cat' without `group_id`",
        ),
        (
            labelme("2.jpg", [shape("cat", [[1, 1, 1], [2, 2, 2]])]),
            r"2\.json: shape 1 \(polygon\) cannot be drawn",
        ),
        (labelme("2.jpg", [shape("cat", [["a", 1]] * 3)]), r"shape 1 \(polygon\) cannot be drawn"),
        (
            labelme("2.jpg", [shape("cat", [[1, 1], [2, 2]], kind="mask", mask="??")]),
            r"shape 1 \(mask\) cannot be drawn",
        ),
    ],
)
def test_bad_labelme_is_one_line(labelme_folder, tmp_path, text, match):
    (labelme_folder / "2.json").write_text(text)
    with pytest.raises(UserError, match=match) as caught:
        convert("labelme", labelme_folder, tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    assert_nothing_left(tmp_path)


def test_two_jsons_of_one_frame_are_refused(labelme_folder, tmp_path):
    (labelme_folder / "2 copy.json").write_text(labelme("2.jpg", []))
    with pytest.raises(UserError, match=r"2\.jpg: is named twice in the labels of video park; remove one"):
        convert("labelme", labelme_folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_jsons_below_others_are_counted_and_extensions_have_any_case(labelme_folder, tmp_path):
    expected = convert("labelme", labelme_folder, tmp_path / "one").counts
    (labelme_folder / "more").mkdir()
    (labelme_folder / "more" / "2.json").write_text((labelme_folder / "2.json").read_text())
    content = json.loads((labelme_folder / "2.json").read_text()) | {"imagePath": "2.JPG"}
    (labelme_folder / "2.json").write_text(json.dumps(content))
    done = convert("labelme", labelme_folder, tmp_path / "two")
    assert done.counts == expected and done.left_out["json files in folders below others"] == 1
