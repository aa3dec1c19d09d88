"""Broken ground truth and results give errors of one line that name file, record and cause."""

import pytest

from masktrack_jax.evaluation.vis_ap import evaluate_vis
from masktrack_jax.runtime.errors import UserError
from tests.helpers.evaluation import one_video, rectangle, track

A = rectangle(0, 0, 10, 10)


def broken_ground_truth(change):
    ground_truth = one_video([[A]])
    change(ground_truth)
    return ground_truth


@pytest.mark.parametrize(
    "change, word",
    [
        (lambda g: g.pop("annotations"), "no annotations"),
        (lambda g: g.update(annotations=None), "no annotations"),
        (lambda g: g.pop("videos"), "'videos'"),
        (lambda g: g.pop("categories"), "'categories'"),
        (lambda g: g["videos"].append(g["videos"][0]), "used twice"),
        (lambda g: g["categories"].append(g["categories"][0]), "used twice"),
        (lambda g: g["videos"].append({"id": "x"}), "mix"),
        (lambda g: g["annotations"][0].update(video_id=8), "video_id 8"),
        (lambda g: g["annotations"][0].update(category_id=8), "category_id 8"),
        (lambda g: g["annotations"][0].pop("video_id"), "'video_id'"),
        (lambda g: g["annotations"][0].update(areas="much"), "'areas'"),
        (lambda g: g["annotations"][0].update(segmentations=None), "'segmentations'"),
        (lambda g: g["annotations"][0].update(segmentations=[[[1, 2, float("nan"), 4, 5, 6]]]), "polygon"),
        (lambda g: g["annotations"].append(3), "annotations[1]"),
    ],
)
def test_broken_ground_truth_is_one_line(change, word):
    with pytest.raises(UserError) as error:
        evaluate_vis(broken_ground_truth(change), [track([A])], names=("gt.json", "results.json"))
    assert word in str(error.value) and "gt.json" in str(error.value) and "\n" not in str(error.value)


def counts(text):
    return {"size": [40, 40], "counts": text}


@pytest.mark.parametrize(
    "result, word",
    [
        (track([A], video_id=4), "video_id 4"),
        (track([A], video_id=[1]), "'video_id'"),
        (track([A], score=float("nan")), "'score'"),
        (track([A], score=None), "'score'"),
        (track([A], score="high"), "'score'"),
        ({"video_id": 1, "category_id": 1, "segmentations": [A]}, "'score'"),
        ({"video_id": 1, "category_id": 1, "score": 1}, "'segmentations'"),
        (track("mask"), "'segmentations'"),
        (track([None, "mask"]), "frame 1"),
        (track([7]), "frame 0"),
        (track([{"size": [40, 40]}]), "frame 0"),
        (track([{"size": [40], "counts": A["counts"]}]), "frame 0"),
        (track([{"size": [40, 41], "counts": A["counts"]}]), "1600 pixels"),
        (track([counts(A["counts"][:-1])]), "frame 0"),
        (track([counts(A["counts"] + "5")]), "frame 0"),
        (track([counts("")]), "RLE"),
        (track([counts("o")]), "RLE"),
        (track([counts("Ünsinn\0")]), "RLE"),
        (track([counts([1, 2, 3])]), "6 pixels"),
        (track([counts([1700, -100])]), "counts"),
        (track([counts(None)]), "counts"),
    ],
)
def test_a_broken_result_is_one_line(result, word):
    with pytest.raises(UserError) as error:
        evaluate_vis(one_video([[A, A]]), [track([A]), result], names=("gt.json", "results.json"))
    assert word in str(error.value) and "results.json[1]" in str(error.value) and "\n" not in str(error.value)


def test_results_must_be_a_list():
    with pytest.raises(UserError, match="list of tracks"):
        evaluate_vis(one_video([[A]]), {"tracks": []})
