"""The worst objects and tracks, and the error named for each, on tracks with one kind of error."""

import pytest

from tests.helpers.diagnosis import (
    BOTTOM,
    CAT,
    CAT_AND_DOG,
    NOWHERE,
    PERFECT,
    POOR,
    TOP,
    TWO_CATS,
    diagnose,
    ground_truth,
    track,
)

HALF = TOP[:3] + [None] * 3


@pytest.mark.parametrize(
    "truth, results, reason",
    [
        (TWO_CATS, [track(BOTTOM)], "missed: no mask in any frame"),
        (TWO_CATS, [track(TOP[:2] + [None] * 4), track(BOTTOM)], "missed: no mask in 4 of 6 frames"),
        (TWO_CATS, [track(TOP[:4] + [None] * 2), track(BOTTOM)], "detection: no mask in 2 of 6 frames"),
        (TWO_CATS, [track(HALF), track([None] * 3 + TOP[3:]), track(BOTTOM)], "association: its masks are"),
        (ground_truth((TOP, 2)), [track(TOP)], "classification: found, but as cat"),
        (TWO_CATS, [track(POOR), track(BOTTOM)], "segmentation: found, but with poor masks"),
        (ground_truth((HALF, CAT)), [track(TOP)], "detection: its track also has masks where"),
    ],
)
def test_errors_of_objects(truth, results, reason):
    worst = diagnose(truth, results).worst_objects[0]
    assert worst.labels == [0] and worst.reason.startswith(reason), worst
    assert worst.title == f"{worst.category}, IoU {worst.iou:.2f}"


@pytest.mark.parametrize(
    "truth, results, reason",
    [
        (TWO_CATS, [*PERFECT, track(NOWHERE)], "false: it overlaps no object"),
        (CAT_AND_DOG, [track(BOTTOM)], "classification: the object is a dog <small>"),
        (TWO_CATS, [track(TOP[:3] + BOTTOM[3:])], "association: its masks are spread over 2 objects"),
        (TWO_CATS, [*PERFECT, track(POOR)], "false: a duplicate of a better track"),
        (TWO_CATS, [track(TOP[:4] + [None] * 2), track([None] * 4 + TOP[4:])], "association: a fragment"),
        (TWO_CATS, [track(POOR)], "segmentation: its masks of the object are poor"),
        (ground_truth((TOP[:2] + [None] * 4, CAT)), [track(TOP)], "false: 4 of its 6 masks are not on"),
        (TWO_CATS, [track(TOP[:2] + [None] * 4)], "detection: it misses its object in 4 frames"),
    ],
)
def test_errors_of_tracks(truth, results, reason):
    worst = diagnose(truth, results).worst_tracks[0]
    assert worst.tracks == [len(results) - 1] and worst.reason.startswith(reason), worst
    assert worst.title == f"{worst.category}, {worst.score:.2f}"


def test_the_worst_come_first_and_at_most_two_of_a_video():
    diagnosis = diagnose(TWO_CATS, [track(NOWHERE, score=score) for score in (0.3, 0.9, 0.6)])
    assert [case.score for case in diagnosis.worst_tracks] == [0.9, 0.6]
    assert [case.iou for case in diagnosis.worst_objects] == [0, 0]
