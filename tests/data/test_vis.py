"""Reading annotations: the content of a valid file, and one line for each fault that a file can have."""

import copy

import numpy as np
import pytest
from PIL import Image

from masktrack_jax.data.lint.dataset import lint
from masktrack_jax.data.vis import read_vis
from masktrack_jax.masks.segmentations import decode_segmentation
from masktrack_jax.runtime.errors import UserError
from tests.helpers.annotations import HEIGHT, WIDTH, annotations, object_mask, read, set_to, without


def test_read_vis(tmp_path):
    dataset = read(tmp_path, annotations())
    assert [(c.id, c.name) for c in dataset.categories] == [(9, "seal"), (4, "ape")]
    video, empty = dataset.videos
    assert (video.id, video.height, video.width, video.length, video.name) == (7, HEIGHT, WIDTH, 2, "v7")
    assert dataset.objects_of(empty) == () and dataset.labelled
    assert dataset.frame_path(video, 1) == tmp_path / "JPEGImages" / "v7" / "1.jpg"
    (found,) = dataset.objects_of(video)
    assert (found.label, found.iscrowd, found.boxes) == (0, False, ((6.0, 4.0, 17.0, 12.0), None))
    np.testing.assert_array_equal(decode_segmentation(found.segmentations[0], HEIGHT, WIDTH), object_mask())


def test_public_validation_files_have_no_annotations(tmp_path):
    content = annotations()
    for absent in ({}, {"annotations": None}):
        dataset = read(tmp_path, {key: content[key] for key in ("categories", "videos")} | absent)
        assert not dataset.labelled and dataset.objects_of(dataset.videos[0]) == ()


def test_boxes_come_from_masks_where_the_file_has_none(tmp_path):
    content = annotations()
    for key in ("bboxes", "areas"):
        del content["annotations"][0][key]
    assert read(tmp_path, content).objects[7][0].boxes == ((6.0, 4.0, 17.0, 12.0), None)


ALL = (0.0, 0.0, 30.0, 20.0)


@pytest.mark.parametrize(
    ("polygon", "box", "area", "expected", "note"),
    [
        ([6, 4, 17, 4, 17, 12, 6, 12], [6, 4, 11, 8], 88, (6.0, 4.0, 17.0, 12.0), None),
        ([6, 4, 17, 4, 17, 12, 6, 12], [6, 4, 10, 7], 99, (6.0, 4.0, 16.0, 11.0), None),  # to the last pixel
        ([-5, -5, 35, -5, 35, 25, -5, 25], [-5, -5, 40, 30], 600, ALL, None),  # clipped to the frame
        ([6, 4, 7, 4, 7, 12, 6, 12], [6, 4, 0.5, 8], 8, None, "boxes smaller than a pixel, left out"),
        ([6, 4, 17, 4, 17, 12, 6, 12], [6, 4, 17, 12], 88, (6.0, 4.0, 17.0, 12.0), "boxes that do not fit"),
        ([6, 4, 17, 4, 17, 12, 6, 12], [40, 4, 11, 8], 88, (6.0, 4.0, 17.0, 12.0), "boxes that do not fit"),
        ([6, 4, 17, 4, 17, 12, 6, 12], None, 88, (6.0, 4.0, 17.0, 12.0), "boxes that do not fit"),
        ([6, 4, 17, 4, 17, 12, 6, 12], [6, 4, 11, 8], 0, (6.0, 4.0, 17.0, 12.0), "areas of 0 or less"),
        ([6, 4, 17, 4, 17, 12, 6, 12], [6, 4, 11, 8], -3, (6.0, 4.0, 17.0, 12.0), "areas of 0 or less"),
        ([26, 4, 26, 4, 26, 4], [26, 4, 11, 8], 88, None, "masks without a pixel, left out"),
    ],
)
def test_boxes_are_clipped_filtered_or_taken_from_the_mask(tmp_path, polygon, box, area, expected, note):
    content = annotations()
    content["annotations"][0] |= {"segmentations": [[polygon], None], "bboxes": [box, None]}
    content["annotations"][0] |= {"areas": [area, None]}
    dataset = read(tmp_path, content)
    found = dataset.objects[7][0]
    assert found.boxes[0] == expected
    assert (found.segmentations[0] is None) == (expected is None)
    kinds = [kind for kind in dataset.left_out.notes if not kind.startswith("objects without")]
    assert [kind.startswith(note or "-") for kind in kinds] == ([True] if note else [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("videos"), "`videos`"),
        (set_to("categories", to={}), "`categories`"),
        (set_to("annotations", to=[1]), "annotation number 1 is 1, expected an object"),
        (without("videos", 0, "id"), "video number 1 .*`id`"),
        (without("videos", 0, "height"), "video 7 .*`height`"),
        (set_to("videos", 1, "width", to=-4), "video 3 .*`width`"),
        (set_to("videos", 0, "file_names", to=[]), "video 7 .*`file_names`"),
        (set_to("videos", 0, "file_names", 1, to="/v7/1.jpg"), "video 7 has frame '/v7/1.jpg'.* not below"),
        (set_to("videos", 0, "file_names", 1, to="v7/../../1.jpg"), "video 7 has frame .* not below"),
        (set_to("videos", 0, "file_names", 1, to="..\\1.jpg"), "video 7 has frame .* not below"),
        (set_to("videos", 0, "width", to=2**28), "video 7 has frames of 20 x 268435456, more than"),
        (set_to("videos", 0, "length", to=3), "video 7 has `length` 3 but 2"),
        (set_to("videos", 1, "id", to=7), "video 7 appears twice"),
        (set_to("categories", 1, "id", to=9), "category 9 appears twice"),
        (without("categories", 0, "name"), "category 9 .*`name`"),
        (without("annotations", 0, "video_id"), "annotation 1 has no `video_id`"),
        (without("annotations", 0, "segmentations"), "annotation 1 has no `segmentations`"),
        (
            set_to("annotations", 0, "segmentations", to=None),
            "annotation 1 has `segmentations` null, expected a list",
        ),
        (set_to("annotations", 0, "video_id", to=8), "annotation 1 .*8.* not among the videos"),
        (set_to("annotations", 0, "category_id", to=[9]), "annotation 1 .*not among the categories"),
        (set_to("annotations", 0, "bboxes", to=[None]), "annotation 1 has 1 entries in `bboxes`"),
        (set_to("annotations", 0, "bboxes", 0, to=[1, 2, 3]), "annotation 1, frame 0, has box"),
        (set_to("annotations", 0, "areas", to=[1, 2, 3]), "annotation 1 has 3 entries in `areas`"),
        (
            set_to("annotations", 0, "segmentations", 0, "size", to=[9, 9]),
            r"annotation 1, frame 0, .*\[9, 9\]",
        ),
        (
            set_to("annotations", 0, "segmentations", 0, "counts", to=[5]),
            "annotation 1, frame 0, .*cover 5 pixels",
        ),
        (
            set_to("annotations", 0, "segmentations", 0, to={"size": [9, 9], "counts": "ab"}),
            r"annotation 1, frame 0, is not a mask \(RLE of size \[9, 9\]",
        ),
    ],
)
def test_bad_record_is_one_line_that_names_it(tmp_path, change, message):
    content = copy.deepcopy(annotations())
    change(content)
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value) and str(tmp_path / "instances.json") in str(caught.value)


def test_bad_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match="not valid JSON at line 2 column 3"):
        read(tmp_path, "{\n  videos}")
    with pytest.raises(UserError, match="is not an object"):
        read(tmp_path, "[]")
    with pytest.raises(UserError, match=r"absent\.json: cannot be read \(No such file"):
        read_vis(tmp_path / "absent.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_vis(tmp_path)
    (tmp_path / "picture.json").write_bytes("Bär".encode("latin-1"))
    with pytest.raises(UserError, match="is not UTF-8; save it as UTF-8"):
        read_vis(tmp_path / "picture.json")


def test_the_extension_of_a_frame_may_be_in_any_case(tmp_path):
    dataset = read(tmp_path, annotations())
    (tmp_path / "JPEGImages" / "v7").mkdir(parents=True)
    for name in ("0.JPG", "1.jpg"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "JPEGImages" / "v7" / name)
    video, missing = dataset.videos
    assert [dataset.has_frame(video, frame) for frame in (0, 1)] == [True, True]
    assert dataset.read_frame(video, 0).shape == (HEIGHT, WIDTH, 3)
    assert not dataset.has_frame(missing, 0)
    findings = lint(tmp_path / "instances.json")
    assert {kind: number for kind, (number, _) in findings.errors.items()} == {"missing images": 2}
