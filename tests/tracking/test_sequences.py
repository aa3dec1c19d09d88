"""Whole sequences through `Tracker`, with the true identities as the oracle.

Crossings, occlusions and re-entries, weak detections, long videos, and every combination of rules.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from masktrack_jax.tracking import similarity
from masktrack_jax.tracking.assignment import ASSIGNMENTS, DROPPED
from masktrack_jax.tracking.association import Tracker
from masktrack_jax.tracking.memory import MEMORIES, Frame
from masktrack_jax.tracking.options import AssociationOptions
from masktrack_jax.tracking.similarity import SIMILARITIES, box_iou
from tests.helpers.configs import ROOT

Box = tuple[float, float, float, float]
Sight = tuple[Box, float, int, np.ndarray]  # box, score, label, embedding
COSINE = AssociationOptions(
    similarity="cosine",
    assignment="hungarian",
    new_threshold=0.5,
    score_weight=0.0,
    iou_weight=0.3,
    label_weight=0.0,
)
NOTHING_LEARNED = AssociationOptions(
    similarity="none", assignment="hungarian", new_threshold=0.3, iou_weight=1.0, label_weight=0.0
)


def crossing_boxes(frames: int = 60) -> np.ndarray:
    """Boxes (frames, 4, 4) of two pairs whose paths cross: at right angles, and head-on, large and small."""
    t = np.arange(frames, dtype=float)
    still = np.zeros(frames)
    centres = [(2 * t, still + 60), (still + 60, 2 * (t - 4)), (200 + 2 * t, still), (320 - 2 * t, still)]
    sizes = [(20, 20), (20, 20), (30, 60), (16, 24)]
    boxes = [(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for (x, y), (w, h) in zip(centres, sizes)]
    return np.array(boxes).transpose(2, 0, 1)


@pytest.mark.parametrize("assignment", ["hungarian", "in_turn"])
def test_overlaps_alone_track_boxes_that_cross(assignment: str) -> None:
    boxes = crossing_boxes()
    overlaps = [box_iou(now, now) - np.eye(4) for now in boxes]
    assert max(o[0, 1] for o in overlaps) > 0.35 and max(o[2, 3] for o in overlaps) > 0.2
    rng = np.random.default_rng(0)
    tracker, names = Tracker(replace(NOTHING_LEARNED, assignment=assignment)), {}
    for now in boxes:
        order = rng.permutation(4)
        seen = now[order] + rng.normal(0, 0.3, (4, 4))
        noise = rng.normal(0, 10, (4, 3))  # embeddings without information, which must not matter
        ids = tracker.update(Frame(seen, rng.uniform(0.5, 1, 4), np.zeros(4, int), noise))
        for i, track_id in zip(order, ids.tolist()):
            assert names.setdefault(int(i), track_id) == track_id
    assert sorted(names.values()) == [0, 1, 2, 3]


def sight(box: Box, axis: int | dict[int, float], score: float = 0.9, label: int = 0) -> Sight:
    """A detection: box, score, label, and an embedding along an axis or between two of them."""
    axes = axis if isinstance(axis, dict) else {axis: 1.0}
    return box, score, label, 5 * sum(weight * np.eye(4)[a] for a, weight in axes.items())


def update(tracker: Tracker, *sights: Sight) -> list[int]:
    boxes, scores, labels, embeddings = zip(*sights) if sights else [()] * 4
    boxes, embeddings = np.reshape(boxes, (-1, 4)), np.reshape(embeddings, (-1, 4))
    return tracker.update(Frame(boxes, scores, labels, embeddings)).tolist()


HERE, THERE, FAR = (0, 0, 10, 10), (30, 0, 40, 10), (80, 0, 95, 15)


@pytest.mark.parametrize("memory", sorted(MEMORIES))
@pytest.mark.parametrize("similarity", ["cosine", "bisoftmax", "softmax"])
@pytest.mark.parametrize(
    "away, retained, known", [(1, 20, 1), (19, 20, 1), (20, 20, 0), (20, 0, 1), (90, 0, 1)]
)
def test_an_object_that_comes_back_is_known_while_it_is_remembered(
    memory: str, similarity: str, away: int, retained: int, known: bool
) -> None:
    options = replace(COSINE, memory=memory, similarity=similarity, frames_retained=retained, bank_size=4)
    tracker = Tracker(replace(options, new_threshold=0.0) if similarity == "softmax" else options)
    for _ in range(6):
        assert update(tracker, sight(HERE, 0), sight(THERE, 1)) == [0, 1]
    for _ in range(away):
        assert update(tracker, sight(THERE, 1)) == [1]
    expected = [0, 1] if known else [2, 1]
    assert update(tracker, sight(FAR, {0: 0.9, 2: 0.4}), sight(THERE, 1)) == expected


@pytest.mark.parametrize("memory, survives", [("last", False), ("average", True), ("bank", True)])
def test_a_spoilt_last_sight_before_an_occlusion(memory: str, survives: bool) -> None:
    """Half hidden, it looks like none of its sights: only a memory of several sights recognises it."""
    options = replace(COSINE, memory=memory, average_rate=0.3, bank_size=5, iou_weight=1.0)
    tracker = Tracker(options)
    for _ in range(8):
        update(tracker, sight(HERE, 0), sight(THERE, 1))
    assert update(tracker, sight(HERE, 3), sight(THERE, 1)) == [0, 1], "found by its place"
    for _ in range(10):
        update(tracker, sight(THERE, 1))
    assert update(tracker, sight(FAR, 0), sight(THERE, 1)) == ([0, 1] if survives else [2, 1])


def test_bank_compare_max_knows_a_look_that_was_seen_once() -> None:
    for compare, expected in (("mean", [1]), ("max", [0])):
        tracker = Tracker(replace(COSINE, memory="bank", bank_size=8, bank_compare=compare, iou_weight=2.0))
        update(tracker, sight(HERE, 3))
        for _ in range(4):
            update(tracker, sight(HERE, 0))
        assert update(tracker, sight(FAR, 3)) == expected


def test_a_stale_box_counts_less_and_less() -> None:
    """A newcomer where an object left takes its identity, unless the place is forgotten by then."""
    for iou_frames, away, expected in ((0, 9, 0), (10, 2, 0), (10, 9, 1), (5, 9, 1)):
        tracker = Tracker(replace(COSINE, iou_weight=1.0, iou_frames=iou_frames))
        update(tracker, sight(HERE, 0))
        for _ in range(away):
            update(tracker)
        assert update(tracker, sight(HERE, 1)) == [expected]


def test_weak_detections_carry_a_track_on_and_start_none() -> None:
    """An object fades to a score of 0.2 for a while; a false detection of 0.2 stands beside it."""
    options = replace(COSINE, high_score=0.5)
    tracker, ghosts = Tracker(options), []
    for score in [0.9] * 3 + [0.2] * 4 + [0.9] * 3:
        ids = update(tracker, sight(FAR, 2, 0.2), sight(HERE, 0, score))
        ghosts.append(ids[0])
        assert ids[1] == 0
    assert set(ghosts) == {DROPPED}
    # A weak look-alike gets nothing: the object went to a stronger one before.
    assert update(tracker, sight(THERE, 0, 0.2), sight(HERE, {0: 0.8, 1: 0.6}, 0.6)) == [DROPPED, 0]
    one_pass = Tracker(replace(options, high_score=0.0, iou_weight=0.0))
    update(one_pass, sight(HERE, 0))
    assert update(one_pass, sight(THERE, 0, 0.2), sight(HERE, {0: 0.8, 1: 0.6}, 0.6)) == [0, 1]


def test_duplicates_of_another_class_start_no_track() -> None:
    tracker = Tracker(replace(COSINE, label_weight=5.0, duplicate_iou=0.7))
    for _ in range(3):
        assert update(tracker, sight(HERE, 0, 0.4, label=1), sight(HERE, 0, 0.9)) == [DROPPED, 0]
    # Another look in front of it is another object.
    assert update(tracker, sight(HERE, 0), sight((0, 0, 10, 15), 1)) == [0, 1]


@pytest.mark.parametrize("same_label, expected", [(False, 0), (True, 1)])
def test_the_label_as_a_constraint(same_label: bool, expected: int) -> None:
    tracker = Tracker(replace(COSINE, same_label=same_label))
    update(tracker, sight(HERE, 0))
    assert update(tracker, sight(HERE, 0, label=2)) == [expected]


@pytest.mark.parametrize("memory", sorted(MEMORIES))
@pytest.mark.parametrize("assignment", sorted(ASSIGNMENTS))
@pytest.mark.parametrize("similarity", sorted(SIMILARITIES))
def test_one_to_one_deterministic_and_flat_with_every_rule(
    similarity: str, assignment: str, memory: str
) -> None:
    options = AssociationOptions(
        similarity, assignment, memory, new_threshold=0.4, frames_retained=5, bank_size=3, high_score=0.3
    )

    def ids_of(tracker: Tracker, frames: int = 60) -> list[list[int]]:
        rng = np.random.default_rng(3)
        looks, found = rng.normal(0, 1, (5, 4)), []
        for _ in range(frames):
            seen = rng.choice(5, rng.integers(0, 8))
            corners = 20.0 * seen[:, None] + rng.normal(0, 1, (len(seen), 2))
            boxes = np.hstack([corners, corners + 12])
            ids = tracker.update(Frame(boxes, rng.random(len(seen)), seen % 2, looks[seen]))
            kept = ids[ids != DROPPED].tolist()
            assert len(kept) == len(set(kept))
            found.append(ids.tolist())
        return found

    tracker = Tracker(options)
    first = ids_of(tracker)
    assert any(track_id > 0 for ids in first for track_id in ids)
    assert len(tracker._memory) <= 5 * 7 and (tracker._memory.unseen < 5).all()
    assert tracker._memory.looks.shape[1:] == (3 if memory == "bank" else 1, 4)
    tracker.reset()
    assert ids_of(tracker) == first


@pytest.mark.parametrize("after", [0, 1, 25])
@pytest.mark.parametrize("memory", sorted(MEMORIES))
def test_a_tracker_resumes_from_the_state_of_another(memory: str, after: int, tmp_path: Path) -> None:
    """Bit for bit, also through a file. What either of them sees afterwards does not change the state."""
    rng, options = np.random.default_rng(5), AssociationOptions(memory=memory, frames_retained=4, bank_size=3)
    looks, frames = rng.normal(0, 1, (6, 4)), []
    for _ in range(50):
        seen = rng.choice(6, rng.integers(0, 5), replace=False)
        corners = 20.0 * seen[:, None] + rng.normal(0, 1, (len(seen), 2))
        boxes = np.hstack([corners, corners + 12])
        scores, noise = rng.random(len(seen)), rng.normal(0, 0.3, (len(seen), 4))
        frames.append(Frame(boxes, scores, seen % 2, looks[seen] + noise))
    whole = Tracker(options)
    wanted = [whole.update(frame).tolist() for frame in frames[:after]]
    state = whole.state()
    wanted += [whole.update(frame).tolist() for frame in frames[after:]]
    np.savez(tmp_path / "state.npz", **state)
    for saved in (state, dict(np.load(tmp_path / "state.npz"))):
        other = Tracker(options)
        other.update(frames[7])
        other.restore(saved)
        assert [other.update(frame).tolist() for frame in frames[after:]] == wanted[after:]
        for name, value in whole.state().items():
            np.testing.assert_array_equal(other.state()[name], value)
    assert max(max(ids, default=0) for ids in wanted) > 5, "some were forgotten and came back as others"


def test_the_rule_of_the_docs_takes_one_function_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code in docs/tracking.md, unchanged, chosen by its name."""
    text = (ROOT / "docs" / "tracking.md").read_text().split("## Adding an association rule")[1]
    function, line = (part.split("```")[0] for part in text.split("```python\n")[1:3])
    assert function.count("def ") == 1 and len(line.splitlines()) == 1
    monkeypatch.setattr(similarity, "SIMILARITIES", dict(SIMILARITIES))
    exec(function + line, dict(vars(similarity)))  # as if it stood at the end of similarity.py
    (name,) = similarity.SIMILARITIES.keys() - SIMILARITIES.keys()
    options = replace(NOTHING_LEARNED, similarity=name, new_threshold=-2.0, iou_weight=0.0)
    tracker = Tracker(options)
    assert update(tracker, sight(HERE, 0), sight(THERE, 1)) == [0, 1]
    # They are fast: nothing overlaps any more. A third one is too far from both.
    near = [(45, 0, 55, 10), (14, 0, 24, 10), (200, 0, 210, 10)]
    assert update(tracker, *(sight(box, 2) for box in near)) == [1, 0, 2]
