"""Each kind of error is recovered only by its own correction; AP equals the official AP of `vis_ap`."""

import tracemalloc

import pytest

from masktrack_jax.evaluation.diagnosis.page import make_page
from masktrack_jax.evaluation.diagnosis.report import diagnose as diagnose_tracks
from masktrack_jax.evaluation.vis_ap import evaluate_vis
from tests.helpers.diagnosis import (
    BOTTOM,
    CAT,
    CAT_AND_DOG,
    DOG,
    NOWHERE,
    PERFECT,
    POOR,
    TOP,
    TWO_CATS,
    diagnose,
    ground_truth,
    read,
    rectangle,
    track,
)
from tests.helpers.evaluation import load_case

# name: (ground truth, results with one kind of error, the correction that alone repairs it)
ONE_ERROR = {
    "two tracks change places": (
        TWO_CATS,
        [track(TOP[:3] + BOTTOM[3:]), track(BOTTOM[:3] + TOP[3:], score=0.8)],
        "identities",
    ),
    "tracks of two classes change places": (
        CAT_AND_DOG,
        [track(TOP[:4] + BOTTOM[4:]), track(BOTTOM[:4] + TOP[4:], DOG, 0.8)],
        "identities",
    ),
    "a track is split": (
        TWO_CATS,
        [track(TOP[:3] + [None] * 3), track([None] * 3 + TOP[3:]), track(BOTTOM, score=0.5)],
        "identities",
    ),
    "a track continues on another object": (
        ground_truth((TOP[:4] + [None] * 2, CAT), ([None] * 4 + BOTTOM[4:], CAT)),
        [track(TOP[:4] + BOTTOM[4:])],
        "identities",
    ),
    "wrong class": (CAT_AND_DOG, [track(TOP), track(BOTTOM, CAT, 0.95)], "classes"),
    "poor masks": (TWO_CATS, [track(POOR), track(BOTTOM)], "masks"),
    "an object is missed": (TWO_CATS, [track(TOP)], "missed"),
    "frames are missed": (TWO_CATS, [track(TOP), track(BOTTOM[:2] + [None] * 4)], "missed"),
    "a short list": (TWO_CATS, [track(TOP), track([None, *BOTTOM[1:3]])], "missed"),
    "nothing is found": (TWO_CATS, [], "missed"),
    "a false track": (TWO_CATS, [*PERFECT, track(NOWHERE)], "false"),
    "a second track": (TWO_CATS, [*PERFECT, track(POOR)], "false"),
    "false masks in a track": (
        ground_truth((TOP[:4] + [None] * 2, CAT)),
        [track(TOP[:4] + [rectangle(46, 25)] * 2)],
        "false",
    ),
}


@pytest.mark.parametrize("name", ONE_ERROR)
def test_one_error_is_repaired_by_its_correction_alone(name):
    truth, results, kind = ONE_ERROR[name]
    report = diagnose(truth, results).report
    assert report["AP"] < 0.97
    repaired = {key for key, value in report["corrected"].items() if value == pytest.approx(1)}
    assert repaired == {kind, "all"}
    assert report["gains"][kind] == max(report["gains"].values())
    assert report["gains"][kind] == pytest.approx(1 - report["AP"])


def test_perfect_results_gain_nothing():
    report = diagnose(TWO_CATS, PERFECT).report
    assert report["AP"] == pytest.approx(1)
    assert set(report["gains"].values()) == {0.0}
    assert "nothing to gain" in report["summary"]


@pytest.mark.parametrize("case", ["case01", "case02", "case03", "case04"])
def test_recorded_cases_start_at_the_official_ap_and_end_at_one(case):
    truth, results = load_case(case)
    report, official = diagnose(truth, results).report, evaluate_vis(truth, results)
    assert report["AP"] == official.stats["AP"] and report["AP50"] == official.stats["AP50"]
    assert [row["AP"] for row in report["per_category"].values()] == [
        row["AP"] for row in official.per_category.values()
    ]
    assert report["corrected"]["all"] == pytest.approx(1)
    assert min(report["gains"].values()) > 0, "each case has errors of all kinds"


def test_unknown_categories_and_empty_tracks_are_harmless():
    results = [track(TOP, category_id=77), *PERFECT, track([None] * 6)]
    report = diagnose(TWO_CATS, results).report
    assert report["AP"] == pytest.approx(2 / 3), "one false track before two true ones"
    assert report["corrected"]["false"] == report["corrected"]["all"] == pytest.approx(1)


def test_calibration_counts_matches():
    results = [track(TOP, score=0.95), track(BOTTOM, score=0.85), track(NOWHERE, score=0.88)]
    rows = diagnose(TWO_CATS, results).report["calibration"]
    assert [row["tracks"] for row in rows] == [0] * 8 + [2, 1]
    assert rows[8]["right"] == 0.5 and rows[9]["right"] == 1 and rows[0]["right"] is None
    assert rows[8]["mean_score"] == pytest.approx(0.865)
    assert (
        sum(row["tracks"] for row in diagnose(TWO_CATS, [track(TOP, score=1.0)]).report["calibration"]) == 1
    )


def test_nothing_to_gain_is_not_said_while_something_is_left_out():
    """Tracks of the first frame alone have AP 1, as the official rule counts no frame after their end."""
    labels, tracks = read(TWO_CATS, [track(TOP[:1]), track(BOTTOM[:1])])
    noted = diagnose_tracks(labels, tracks, ["results: 2 × tracks shorter than their video"]).report
    assert noted["AP"] == pytest.approx(1)
    assert noted["summary"] == "AP is 1.000. No correction raises it, but see the notes."
    assert noted["notes"] == ["results: 2 × tracks shorter than their video"]


def test_a_mask_larger_than_its_video_takes_no_memory():
    """A mask of 2²⁸ pixels is a text of seven characters."""
    huge = {"size": [2**14, 2**14], "counts": "0PPPPP8"}
    labels, tracks = read(TWO_CATS, [track([huge, *TOP[1:]]), track(BOTTOM)])
    tracemalloc.start()
    try:
        diagnosis = diagnose_tracks(labels, tracks)
        make_page(diagnosis, labels, tracks, ("truth", "results"))
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
