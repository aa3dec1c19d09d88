"""Broken ground truth and results give errors of one line that name file, record and cause."""

import pytest

from masktrack_jax.evaluation.vis_ap import evaluate_vis
from masktrack_jax.runtime.errors import UserError
from tests.helpers.evaluation import one_video, rectangle, track

A = rectangle(0, 0, 10, 10)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda g: g.pop("annotations"), "has no annotations"),
        (lambda g: g.update(annotations=None), "has no annotations"),
        (lambda g: g["annotations"][0].update(video_id=8), "annotation 0 has `video_id` 8"),
        (
            lambda g: g["annotations"][0].update(segmentations=[1]),
            "annotation 0, frame 0, is not a mask",
        ),
    ],
)
def test_broken_ground_truth_is_one_line(change, words):
    ground_truth = one_video([[A]])
    change(ground_truth)
    with pytest.raises(UserError) as error:
        evaluate_vis(ground_truth, [track([A])], names=("gt.json", "results.json"))
    assert str(error.value).startswith(f"gt.json: {words}") and "\n" not in str(error.value)


def counts(text):
    return {"size": [40, 40], "counts": text}


@pytest.mark.parametrize(
    "result, word",
    [
        (track([A], video_id=4), "`video_id` 4"),
        (track([None, "mask"]), "frame 1"),
        (track([7]), "frame 0"),
        (track([{"size": [40, 40]}]), "frame 0"),
        (track([{"size": [40], "counts": A["counts"]}]), "frame 0"),
        (track([{"size": [40, 41], "counts": A["counts"]}]), "1600 pixels"),
        (track([counts(A["counts"][:-1])]), "frame 0"),
        (track([counts(A["counts"] + "5")]), "frame 0"),
        (track([counts("")]), "empty"),
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
    assert (
        word in str(error.value)
        and str(error.value).startswith("results.json: track 1 (video ")
        and "\n" not in str(error.value)
    )


def test_results_must_be_a_list():
    with pytest.raises(UserError, match="list of tracks"):
        evaluate_vis(one_video([[A]]), {"tracks": []})
