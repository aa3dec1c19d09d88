"""Collecting a video's tracks: labels, scores and gaps against loops, and in cases worked out by hand."""

import json
import subprocess
import sys

import numpy as np
import pytest

from masktrack_jax.masks.rle import encode_masks
from masktrack_jax.tracking.tracks import (
    Track,
    TrackOptions,
    VideoTracks,
    class_mean,
    majority,
    presence,
    vote,
)
from tests.helpers.rectangles import rectangle, shown
from tests.helpers.tracking import result


def test_scores_votes_and_segmentations() -> None:
    tracks = VideoTracks()
    tracks.add(result([7, 2], [0, 1], [0.5, 0.25], ["a", "b"]))
    tracks.add(result([], [], [], []))
    tracks.add(result([2, -1], [2, 0], [0.75, 1.0], ["c", "dropped"]))
    tracks.add(result([2], [2], [0.5], ["d"]))
    first, second = tracks.finish(video_id=9, category_ids=[10, 20, 30])
    assert first == {
        "video_id": 9,
        "track_id": 2,
        "category_id": 30,
        "score": pytest.approx(0.5),
        "segmentations": ["b", None, "c", "d"],
    }
    assert (second["track_id"], second["category_id"], second["score"]) == (7, 10, 0.5)
    assert second["segmentations"] == ["a", None, None, None]
    json.dumps([first, second])


def test_of_two_sights_in_one_frame_the_last_one_is_the_mask() -> None:
    tracks = VideoTracks()
    tracks.add(result([3, 3], [1, 1], [0.5, 1.0], ["first", "last"]))
    (track,) = tracks.finish(1, [10, 20])
    assert track["segmentations"] == ["last"] and track["score"] == 0.75


def test_no_tracks() -> None:
    tracks = VideoTracks()
    tracks.add(result([], [], [], []))
    assert tracks.finish(1, []) == []


@pytest.mark.parametrize("labels, expected", [([3, 1, 3], 3), ([5, 2, 5, 2], 2), ([4], 4)])
def test_majority_with_ties_to_the_smallest(labels: list[int], expected: int) -> None:
    assert majority(Track(labels=labels)) == expected


def test_one_sure_detection_outvotes_two_doubtful_ones_and_scores_are_of_the_class_that_won() -> None:
    """Two of three labels are 0, narrowly; weighted by score and probability, 1 wins."""
    seen = [(0, 0.3, [0.3, 0.25]), (0, 0.3, [0.3, 0.25]), (1, 0.9, [0.05, 0.9])]
    tracks = {label: VideoTracks(TrackOptions(label, "presence")) for label in ("majority", "vote")}
    for collected in tracks.values():
        for label, score, probabilities in seen:
            collected.add(result([4], [label], [score], ["rle"], probabilities=[probabilities]))
        collected.add(result([], [], [], []))
    (by_majority,), (by_vote,) = (collected.finish(1, [10, 20]) for collected in tracks.values())
    assert by_majority["category_id"] == 10
    assert by_majority["score"] == pytest.approx((0.3 + 0.3 + 0.05) / 3 * 3 / 4)
    assert by_vote["category_id"] == 20
    assert by_vote["score"] == pytest.approx((0.25 + 0.25 + 0.9) / 3 * 3 / 4)
    json.dumps(by_vote)


def test_two_sights_in_one_frame_are_one_frame_of_presence() -> None:
    track = Track(frames=[0, 0, 2], probabilities=[np.array([0.5])] * 3)
    assert presence(track, 0, 4) == pytest.approx(0.5 * 2 / 4)


def test_votes_and_scores_equal_loops_over_the_detections() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        count, classes, frames = rng.integers(1, 6), 4, 9
        probabilities = rng.dirichlet(np.ones(classes + 1), count)[:, :-1]
        scores, seen = rng.random(count), sorted(rng.choice(frames, count, replace=False))
        track = Track(frames=seen, scores=list(scores), probabilities=list(probabilities))
        votes = [sum(scores[i] * probabilities[i][k] for i in range(count)) for k in range(classes)]
        label = votes.index(max(votes))
        assert vote(track) == label
        wanted = sum(probabilities[i][label] for i in range(count)) / count
        assert class_mean(track, label, frames) == pytest.approx(wanted)
        assert presence(track, label, frames) == pytest.approx(wanted * count / frames)
    assert vote(Track(scores=[1.0], probabilities=[np.array([0.2, 0.4, 0.4])])) == 1, "a tie"


def test_gaps_are_filled_by_the_mask_on_its_way_to_the_next_box() -> None:
    boxes = {0: (4, 10, 12, 18), 3: (10, 4, 18, 12), 4: (10, 4, 18, 12), 7: (10, 4, 18, 12)}
    for longest in (0, 1, 2, 5):
        tracks = VideoTracks(TrackOptions(fill_gaps=longest))
        for frame in range(9):
            if frame in boxes:
                (rle,) = encode_masks(rectangle(*boxes[frame])[None])
                tracks.add(result([0], [0], [0.5], [rle], [boxes[frame]]))
            else:
                tracks.add(result([], [], [], []))
        (track,) = tracks.finish(1, [1])
        there = [segmentation is not None for segmentation in track["segmentations"]]
        assert there == [longest > 1 or frame in boxes for frame in range(8)] + [False]
        assert track["score"] == 0.5
        if longest > 1:
            for frame, box in {1: (6, 8, 14, 16), 2: (8, 6, 16, 14), 5: boxes[4], 6: boxes[4]}.items():
                np.testing.assert_array_equal(shown(track["segmentations"][frame]), rectangle(*box))


def test_tracking_needs_no_jax() -> None:
    code = "from masktrack_jax.tracking import association, tracks; import masktrack_jax.masks.paste"
    code += "; import sys, masktrack_jax.config.inference; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
