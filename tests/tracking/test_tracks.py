"""Collecting a video's tracks: scores, votes, places of the masks, gaps."""

import io
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from masktrack_jax.inference.tracks_on_disk import StoredTracks
from masktrack_jax.masks.paste import move_mask
from masktrack_jax.masks.rle import decode_masks, encode_masks
from masktrack_jax.tracking.tracks import (
    LABELS,
    SCORES,
    Track,
    TrackOptions,
    VideoTracks,
    class_mean,
    majority,
    presence,
    vote,
)


def result(ids, labels, scores, rles, boxes=None, probabilities=None):
    """What `VideoTracks` reads of a `FrameResult`."""
    boxes = np.zeros((len(ids), 4)) if boxes is None else np.array(boxes, np.float32)
    probabilities = np.zeros((len(ids), 3)) if probabilities is None else np.array(probabilities, np.float32)
    return SimpleNamespace(
        track_ids=ids, labels=labels, scores=scores, rles=rles, boxes=boxes, probabilities=probabilities
    )


def test_scores_votes_and_segmentations():
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


@pytest.mark.parametrize("label", sorted(LABELS))
@pytest.mark.parametrize("score, fill_gaps", [(score, 0) for score in sorted(SCORES)] + [("mean", 3)])
def test_tracks_in_a_file_are_those_in_memory_to_the_byte(tmp_path, label, score, fill_gaps):
    """Also where the file is closed and opened again between two frames."""
    rng, options = np.random.default_rng(4), TrackOptions(label, score, fill_gaps)
    kept, path = VideoTracks(options), tmp_path / "detections.jsonl"
    for index in range(30):
        ids = rng.permutation(8)[: rng.integers(0, 4)] if index % 7 else np.zeros(0, int)
        corners = rng.uniform(0, 20, (len(ids), 2)).astype(np.float32)
        boxes = np.hstack([corners, corners + rng.uniform(2, 9, (len(ids), 2)).astype(np.float32)])
        rles = encode_masks((rng.random((len(ids), 30, 40)) < 0.1).astype(np.uint8))
        scores, probabilities = rng.random(len(ids), np.float32), rng.random((len(ids), 3), np.float32)
        frame = result(ids, rng.integers(0, 3, len(ids)), scores, rles, boxes, probabilities)
        kept.add(frame)
        with open(path, "a+b") as file:
            stored = StoredTracks(file, options, index)
            stored.add(frame)
            if index in (0, 29):
                text = io.StringIO()
                records = kept.finish(5, [10, 20, 30])
                assert stored.write(text, 5, [10, 20, 30]) == len(records)
                assert text.getvalue() == json.dumps(records)
    assert stored.frame_count == 30 and len(records) == 8


def test_of_two_sights_in_one_frame_the_last_one_is_the_mask():
    tracks = VideoTracks()
    tracks.add(result([3, 3], [1, 1], [0.5, 1.0], ["first", "last"]))
    (track,) = tracks.finish(1, [10, 20])
    assert track["segmentations"] == ["last"] and track["score"] == 0.75


def test_no_tracks():
    tracks = VideoTracks()
    tracks.add(result([], [], [], []))
    assert tracks.finish(1, []) == []


@pytest.mark.parametrize("labels, expected", [([3, 1, 3], 3), ([5, 2, 5, 2], 2), ([4], 4)])
def test_majority_with_ties_to_the_smallest(labels, expected):
    assert majority(Track(labels=labels)) == expected


def test_one_sure_detection_outvotes_two_doubtful_ones_and_scores_are_of_the_class_that_won():
    """Two of three say 0, by a hair; weighted by score and probability, 1 wins."""
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


def test_two_sights_in_one_frame_are_one_frame_of_presence():
    track = Track(frames=[0, 0, 2], probabilities=[np.array([0.5])] * 3)
    assert presence(track, 0, 4) == pytest.approx(0.5 * 2 / 4)


def test_votes_and_scores_equal_loops_over_the_detections():
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


def rectangle(x1, y1, x2, y2, size=(40, 60)):
    mask = np.zeros(size, np.uint8)
    mask[y1:y2, x1:x2] = 1
    return mask


def shown(rle, size=(40, 60)):
    return decode_masks([rle], *size)[0]


def test_gaps_are_filled_by_the_mask_on_its_way_to_the_next_box():
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


def test_moved_mask_equals_a_look_at_every_pixel():
    """Output pixel (y, x) is the input's pixel under its centre, taken back from `target` to `box`."""
    rng = np.random.default_rng(0)
    height, width = size = (23, 31)
    for _ in range(30):
        mask = (rng.random(size) < 0.5).astype(np.uint8)
        (x1, y1), (w, h) = rng.uniform(0, 15, 2), rng.uniform(3, 15, 2)
        (u1, v1), (p, q) = rng.uniform(-5, 25, 2), rng.uniform(3, 20, 2)
        box, target = (x1, y1, x1 + w, y1 + h), (u1, v1, u1 + p, v1 + q)
        moved = shown(move_mask(encode_masks(mask[None])[0], box, target), size)
        for y in range(height):
            for x in range(width):
                from_x, from_y = x1 + (x + 0.5 - u1) * w / p, y1 + (y + 0.5 - v1) * h / q
                inside = 0 <= from_x < width and 0 <= from_y < height
                assert moved[y, x] == (mask[int(from_y), int(from_x)] if inside else 0)


def test_a_box_without_area_moves_its_mask():
    (rle,) = encode_masks(rectangle(5, 6, 9, 9)[None])
    moved = move_mask(rle, (5, 6, 5, 6), (8, 4, 20, 9))
    np.testing.assert_array_equal(shown(moved), rectangle(8, 4, 12, 7))


def test_tracking_needs_no_jax():
    code = "from masktrack_jax.tracking import association, tracks; import masktrack_jax.masks.paste"
    code += "; import sys, masktrack_jax.config.inference; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
