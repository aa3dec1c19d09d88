"""Annotations in mmtracking's form are read as the same data set, or rejected with one line."""

import json

import pytest

from masktrack_jax.data.splits import ground_truth
from masktrack_jax.data.vis import read_vis
from masktrack_jax.masks.rle import decode_mask
from masktrack_jax.runtime.errors import UserError
from tests.helpers.annotations import annotations, cocovid


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
    assert converted["annotations"] == official["annotations"]
    assert [video["id"] for video in converted["videos"]] == [video["id"] for video in official["videos"]]
    assert converted["categories"] == official["categories"] == [{"id": 9, "name": "seal"}]


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("images", {"frame_id": 5}, "video 7 has 2 images, whose `frame_id` do not count from 0"),
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
