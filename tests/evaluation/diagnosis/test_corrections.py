"""Rules of the corrections, on tracks small enough to know the corrected masks."""

import pytest

from masktrack_jax.evaluation.diagnosis.comparisons import ABSENT
from masktrack_jax.evaluation.diagnosis.corrections import (
    CORRECTIONS,
    assign_objects,
    correct_identities,
    correct_masks,
)
from tests.helpers.diagnosis import (
    BOTTOM,
    CAT,
    CAT_AND_DOG,
    DOG,
    NOWHERE,
    POOR,
    TOP,
    TWO_CATS,
    compare,
    ground_truth,
    rectangle,
    track,
)
from tests.helpers.evaluation import load_case


def test_identities_neither_add_nor_drop_nor_change_a_mask():
    truth, results = load_case("case02")
    moved = 0
    for video in compare(truth, results):
        after = correct_identities(video)
        for before_frame, after_frame in zip(video.masks.T, after.masks.T):
            assert sorted(before_frame[before_frame >= 0]) == sorted(after_frame[after_frame >= 0])
        moved += video.masks.shape != after.masks.shape or (video.masks != after.masks).any()
    assert moved > 0


def test_a_merged_track_has_the_mean_score_of_its_masks():
    results = [track(TOP[:2] + [None] * 4, score=0.9), track([None] * 2 + TOP[2:], score=0.3)]
    (video,) = compare(TWO_CATS, results)
    assert correct_identities(video).scores.tolist() == pytest.approx([(2 * 0.9 + 4 * 0.3) / 6])


def test_identities_leave_a_track_of_the_right_class_whole():
    better_scored = track(BOTTOM[:4] + [None] * 2, CAT, 0.9)
    (video,) = compare(CAT_AND_DOG, [better_scored, track(BOTTOM, DOG, 0.3)])
    after = correct_identities(video)
    assert after.masks.tolist() == video.masks.tolist() and after.scores.tolist() == [0.9, 0.3]


@pytest.mark.parametrize("seen_from, tracks", [(3, 1), (0, 2)])
def test_an_object_on_another_objects_track_is_missed_only_if_mostly_uncovered(seen_from, tracks):
    # The main object of the track is the first; its masks of frames 4 and 5 are assigned to the second.
    truth = ground_truth((TOP[:4] + [None] * 2, CAT), ([None] * seen_from + BOTTOM[seen_from:], CAT))
    (video,) = compare(truth, [track(TOP[:4] + BOTTOM[4:])])
    assert len(CORRECTIONS["missed"](video).masks) == tracks


def test_filled_frames_beyond_a_short_list_count():
    (video,) = compare(TWO_CATS, [track(TOP), track(BOTTOM[:3])])
    assert CORRECTIONS["missed"](video).lengths.tolist() == [6, 6]


def test_masks_keep_mixed_tracks_mixed_and_absent_masks_absent():
    (video,) = compare(TWO_CATS, [track([*POOR[:2], None, *BOTTOM[3:]])])
    # Row 0 is the prediction; 1 and 2 are the labels.
    assert correct_masks(video).masks.tolist() == [[1, 1, ABSENT, 2, 2, 2]]


def test_masks_and_tracks_below_iou_one_tenth_are_background():
    corner = rectangle(12, 12)  # 4 common pixels of 284 with TOP's first mask
    brush = rectangle(22, 10)  # IoU 0.2 with TOP[4]: a mean of 0.067 over three masks, of 0.1 over two
    results = [
        track([corner, *TOP[1:]]),
        track([*NOWHERE[:4], brush, None]),
        track([NOWHERE[0], None, None, None, brush, None]),
    ]
    assigned, main = assign_objects(compare(TWO_CATS, results)[0])
    assert assigned.tolist() == [[-1, 0, 0, 0, 0, 0], [-1] * 6, [-1, -1, -1, -1, 0, -1]]
    assert main.tolist() == [0, -1, 0]


def test_a_crowd_is_neither_missed_nor_merged():
    truth = ground_truth((TOP, CAT), (BOTTOM, CAT))
    truth["annotations"][1]["iscrowd"] = 1
    halves = [track(BOTTOM[:3] + [None] * 3), track([None] * 3 + BOTTOM[3:])]
    (video,) = compare(truth, [track(TOP), *halves])
    assert correct_identities(video).masks.tolist() == video.masks.tolist()
    assert CORRECTIONS["false"](video).masks.tolist() == video.masks.tolist()
    (video,) = compare(truth, [track(TOP)])
    assert len(CORRECTIONS["missed"](video).masks) == 1
