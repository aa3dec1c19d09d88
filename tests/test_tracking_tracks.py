"""Collecting a video's tracks: scores, votes and places of the masks."""

import json
import subprocess
import sys

import pytest

from masktrack_jax.tracking.tracks import VideoTracks, majority


def test_scores_votes_and_segmentations():
    tracks = VideoTracks()
    tracks.add([7, 2], [0, 1], [0.5, 0.25], ["a", "b"])
    tracks.add([], [], [], [])
    tracks.add([2, -1], [2, 0], [0.75, 1.0], ["c", "dropped"])
    tracks.add([2], [2], [0.5], ["d"])
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


def test_no_tracks():
    tracks = VideoTracks()
    tracks.add([], [], [], [])
    assert tracks.finish(1, []) == []


@pytest.mark.parametrize("labels, expected", [([3, 1, 3], 3), ([5, 2, 5, 2], 2), ([4], 4)])
def test_majority_with_ties_to_the_smallest(labels, expected):
    assert majority(labels) == expected


def test_tracking_needs_no_jax():
    code = "from masktrack_jax.tracking import association, masks, tracks; import"
    subprocess.run([sys.executable, "-c", f"{code} sys; assert 'jax' not in sys.modules"], check=True)
