"""Annotations in mmtracking's form are read as the same data set, or rejected with one line."""

import json

import pytest

from masktrack_jax.data.json_files import read_labels
from masktrack_jax.data.lint.dataset import lint
from masktrack_jax.data.splits import ground_truth
from masktrack_jax.data.vis import read_vis
from masktrack_jax.masks.rle import decode_mask
from masktrack_jax.runtime.errors import UserError
from tests.helpers.annotations import annotations, cocovid, set_to, without


def test_mmtrackings_converted_file_is_the_same_data_set(tmp_path):
    official = annotations()
    paths = {}
    for name, made in (("official", official), ("converted", cocovid(official))):
        paths[name] = tmp_path / f"{name}.json"
        paths[name].write_text(json.dumps(made))
    ours, theirs = read_vis(paths["official"]), read_vis(paths["converted"])
    assert [video.file_names for video in ours.videos] == [video.file_names for video in theirs.videos]
    assert ours.labels == theirs.labels and theirs.labelled
    (left,), (right,) = ours.objects_of(ours.videos[0]), theirs.objects_of(theirs.videos[0])
    assert left.boxes == right.boxes and left.label == right.label == 0
    masks = [decode_mask(found.segmentations[0]) for found in (left, right)]
    assert masks[0].sum() == 88 and (masks[0] == masks[1]).all()
    # The labels that the evaluator gets.
    official, converted = (ground_truth(dataset, {9}) for dataset in (ours, theirs))
    assert converted["annotations"] == [{**official["annotations"][0], "instance_id": 5}]
    assert [video["id"] for video in converted["videos"]] == [video["id"] for video in official["videos"]]
    assert converted["categories"] == official["categories"] == [{"id": 9, "name": "seal"}]


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("images", {"frame_id": 5}, "video 7 has 2 images, whose `frame_id` do not count from 0: 1, 5"),
        ("images", {"frame_id": ..., "frame_index": 0}, "image 1 has no `frame_id` but `frame_index`, which"),
        ("annotations", {"video_id": 3}, "annotation 1 has `video_id` 3 but its image is of video 7"),
        ("videos", {"id": 77}, "image 1 has `video_id` 7, which is not among the videos"),
        ("images", {"file_name": ...}, "image 1 has no `file_name`"),
        ("annotations", {"image_id": 99}, "annotation 1 has `image_id` 99, which is not among the images"),
        ("annotations", {"instance_id": ...}, "annotation 1 has no `instance_id`"),
    ],
)
def test_a_damaged_converted_file_is_one_line(tmp_path, key, change, message):
    made = cocovid(annotations())
    for name, value in change.items():
        if value is ...:
            del made[key][0][name]
        else:
            made[key][0][name] = value
    path = tmp_path / "converted.json"
    path.write_text(json.dumps(made))
    with pytest.raises(UserError, match=message):
        read_vis(path)


def converted(tmp_path, change):
    made = cocovid(annotations())
    made["annotations"] += [made["annotations"][0] | {"id": 2, "image_id": 2}]
    change(made)
    path = tmp_path / "converted.json"
    path.write_text(json.dumps(made))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_to("images", 0, "frame_id", to="0"), r"image 1 has `frame_id` '0' \(text\), expected a whole"),
        (set_to("images", 0, "height", to=True), "image 1 has `height` true, expected a whole number from 1"),
        (set_to("images", 0, "height", to=21), "video 7 has images of 21x30 and 20x30 .*, expected one size"),
        (set_to("images", 0, "video_id", to=8), "image 1 has `video_id` 8, which is not among the videos"),
        (set_to("images", 0, to=3), "image number 1 is 3, expected an object"),
        (set_to("images", 1, "id", to=1), "image 1 appears twice"),
        (set_to("images", 1, "frame_id", to=0), "image 2 is a second frame 0 of video 7"),
        (set_to("videos", to={}), "the file has no list of objects `videos` but an object"),
        (set_to("annotations", 0, to=[]), r"annotation number 1 is \[\], expected an object"),
        (set_to("annotations", 0, "instance_id", to="a"), r"annotation 1 has `instance_id` 'a' \(text\)"),
        (
            set_to("annotations", 1, "image_id", to=1),
            "annotation 2 is a second box of instance 5 in its frame",
        ),
        (set_to("annotations", 0, "area", to=10**400), "instance 5 of video 7, frame 0, has area a number"),
        (
            set_to("annotations", 0, "bbox", to=[1, 2]),
            r"instance 5 of video 7, frame 0, has box \[1, 2\]",
        ),
        (without("annotations", 0, "segmentation"), "annotation 1 has no `segmentation`"),
    ],
)
def test_each_fault_of_a_converted_file_is_said_by_reader_and_linter(tmp_path, change, message):
    path = converted(tmp_path, change)
    with pytest.raises(UserError, match=message) as caught:
        read_vis(path)
    problem = str(caught.value).removeprefix(f"{path}: ").removesuffix("; correct the annotations file")
    assert any(problem in examples for _, examples in lint(path).errors.values())


@pytest.mark.parametrize(("key", "value"), [("category_id", 4), ("iscrowd", 1)])
def test_an_instance_that_changes_is_noted_with_its_count(tmp_path, key, value):
    path = converted(tmp_path, set_to("annotations", 1, key, to=value))
    (line,) = read_labels(path).notes
    assert line.startswith(f"1 boxes whose `{key}` is not that of their instance's first box, which counts")
    assert line.endswith(f"annotation 2 has {value} after {annotations()['annotations'][0][key]}")
    assert line in lint(path).lines()[1] and line in read_vis(path).left_out.summary()


def test_whole_floats_text_ids_and_boxes_without_areas(tmp_path):
    def change(made):
        made["images"][0] |= {"height": 20.0, "frame_id": 0.0}
        for image in made["images"]:
            image["id"] = f"i{image['id']}"
        for box in made["annotations"]:
            box["image_id"] = f"i{box['image_id']}"
            del box["area"], box["bbox"]

    labels = read_labels(converted(tmp_path, change))
    (record,) = labels["annotations"]
    assert labels.pixels == [[88, 88]] and not record.keys() & {"areas", "bboxes"}
    assert labels["videos"][0]["height"] == 20 and lint(converted(tmp_path, change)).errors == {}
