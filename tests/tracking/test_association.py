"""`Tracker` against a slow version written from the paper's rule, and in cases worked out by hand."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from masktrack_jax.tracking.assignment import DROPPED
from masktrack_jax.tracking.association import AssociationOptions, Tracker, only_good_starts
from masktrack_jax.tracking.memory import Frame

EMBEDDING = 6
Detection = tuple[float, float, int, int]  # x, score, label, axis of the embedding


class SlowTracker:
    """The rule, one detection and one object at a time, in Python numbers."""

    def __init__(self, options: AssociationOptions) -> None:
        self.options, self.memory, self.count, self.frame = options, [], 0, -1

    def update(
        self, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, embeddings: np.ndarray
    ) -> list[int]:
        self.frame += 1
        ids, owners = [], {}  # owners: object → (detection, match score)
        for i in range(len(boxes)):
            row = self.match(boxes[i], scores[i], labels[i], embeddings[i])
            best = max(range(len(row)), key=lambda j: row[j])
            ids.append(-1)
            if best == 0:
                ids[i] = self.count
                self.count += 1
            elif best not in owners or row[best] > owners[best][1]:
                if best in owners and not self.options.keep_displaced:
                    ids[owners[best][0]] = -1
                owners[best] = (i, row[best])
                ids[i] = self.memory[best - 1]["id"]
        known = {known["id"]: known for known in self.memory}
        for i, track_id in enumerate(ids):
            if track_id >= 0:
                seen = dict(id=track_id, box=boxes[i], label=labels[i], e=embeddings[i], frame=self.frame)
                if track_id in known and not self.options.update_label:
                    seen["label"] = known[track_id]["label"]
                known[track_id] = seen
        retained = self.options.frames_retained or math.inf
        if len(boxes) == 0:
            retained = math.inf
        self.memory = [known[k] for k in sorted(known) if self.frame - known[k]["frame"] < retained]
        return ids

    def match(self, box: np.ndarray, score: float, label: int, embedding: np.ndarray) -> list[float]:
        logits = [0.0] + [float(np.dot(embedding, m["e"])) for m in self.memory]
        if not self.options.use_embedding:
            logits = [0.0] * len(logits)
        total = math.log(sum(math.exp(x) for x in logits))
        row = []
        for j, logit in enumerate(logits):
            value = logit - total + self.options.score_weight * math.log(score)
            if j == 0:
                value += self.options.label_weight
            else:
                value += self.options.iou_weight * slow_iou(box, self.memory[j - 1]["box"])
                value += self.options.label_weight * (label == self.memory[j - 1]["label"])
            row.append(value)
        return row


def slow_iou(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return width * height / (sum(areas) - width * height)


def random_frame(rng: np.random.Generator, objects: list[dict[str, Any]]) -> Frame:
    """Noisy detections of a few objects, some of them twice, in random order."""
    seen = rng.choice(len(objects), rng.integers(0, 8))
    boxes = np.array([objects[i]["box"] for i in seen]).reshape(-1, 4) + rng.normal(0, 3, (len(seen), 4))
    embeddings = np.array([objects[i]["e"] for i in seen]).reshape(-1, EMBEDDING)
    labels = np.array([objects[i]["label"] for i in seen], int)
    wrong = rng.random(len(seen)) < 0.15
    labels[wrong] = rng.integers(0, 3, wrong.sum())
    return Frame(
        boxes.astype(np.float32),
        rng.uniform(0.05, 1, len(seen)).astype(np.float32),
        labels,
        (embeddings + rng.normal(0, 0.4, embeddings.shape)).astype(np.float32),
    )


@pytest.mark.parametrize(
    "options",
    [
        AssociationOptions(),
        AssociationOptions(frames_retained=3),
        AssociationOptions(keep_displaced=True),
        AssociationOptions(update_label=False, frames_retained=0),
        AssociationOptions(frames_retained=0, use_embedding=False),
        AssociationOptions(score_weight=0.3, iou_weight=5.0, label_weight=1.0),
    ],
)
def test_equals_the_rule_written_out(options: AssociationOptions) -> None:
    dropped = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        corners = rng.uniform(0, 200, (6, 2))
        objects = [
            {"box": [*c, *(c + rng.uniform(20, 80, 2))], "e": rng.normal(0, 1.5, EMBEDDING), "label": i % 3}
            for i, c in enumerate(corners)
        ]
        fast, slow = Tracker(options), SlowTracker(options)
        for _ in range(25):
            frame = random_frame(rng, objects)
            ids = fast.update(frame)
            assert ids.dtype == np.int64
            assert ids.tolist() == slow.update(*frame)
            kept = ids[ids >= 0]
            if not options.keep_displaced:
                assert len(kept) == len(set(kept.tolist())), "one object, two detections"
            dropped += (ids < 0).sum()
    assert dropped > 20, "the frames were meant to hold competing detections"


def detections(*rows: Detection) -> Frame:
    """(x, score, label, axis of the embedding) → a frame with 10×10 boxes at x."""
    boxes = np.array([[x, 0, x + 10, 10] for x, *_ in rows], np.float32).reshape(-1, 4)
    embeddings = np.array([5 * np.eye(4)[axis] for *_, axis in rows], np.float32).reshape(-1, 4)
    scores = np.array([r[1] for r in rows], np.float32)
    return Frame(boxes, scores, np.array([r[2] for r in rows], int), embeddings)


def test_first_frame_numbers_all_detections_in_order() -> None:
    frame = detections((0, 0.9, 1, 0), (0, 0.8, 1, 0), (50, 0.2, 0, 1))
    assert Tracker().update(frame).tolist() == [0, 1, 2]


def test_empty_frames_before_between_and_after() -> None:
    tracker = Tracker()
    assert tracker.update(detections()).shape == (0,)
    assert tracker.update(detections((0, 0.9, 0, 0))).tolist() == [0]
    assert tracker.update(detections()).shape == (0,)
    assert tracker.update(detections((0, 0.9, 0, 0))).tolist() == [0]


def test_appearance_tells_neighbours_apart_and_box_and_label_change_with_the_object() -> None:
    tracker = Tracker()
    tracker.update(detections((0, 0.9, 0, 0), (20, 0.9, 0, 1)))
    # The two have swapped places: IoU says the opposite of the embedding and loses.
    assert tracker.update(detections((20, 0.9, 0, 0), (0, 0.9, 0, 1))).tolist() == [0, 1]
    blind = Tracker(AssociationOptions(use_embedding=False))
    blind.update(detections((0, 0.9, 0, 0), (20, 0.9, 0, 1)))
    assert blind.update(detections((20, 0.9, 0, 0), (0, 0.9, 0, 1))).tolist() == [1, 0]


def test_label_of_a_matched_object_is_updated() -> None:
    weak_label = AssociationOptions(label_weight=1.0)
    tracker = Tracker(weak_label)
    tracker.update(detections((0, 0.9, 0, 0)))
    assert tracker.update(detections((0, 0.9, 2, 0))).tolist() == [0]
    tracker.options = AssociationOptions(label_weight=1000.0)
    assert tracker.update(detections((0, 0.9, 2, 0))).tolist() == [0]
    assert tracker.update(detections((0, 0.9, 0, 0))).tolist() == [1]


@pytest.mark.parametrize(
    "scores, expected", [((0.9, 0.5), [0, -1]), ((0.5, 0.9), [-1, 0]), ((0.7, 0.7), [0, -1])]
)
def test_of_two_claims_the_better_keeps_the_object_and_of_equals_the_first(
    scores: tuple[float, float], expected: list[int]
) -> None:
    tracker = Tracker()
    tracker.update(detections((0, 0.9, 0, 0)))
    assert tracker.update(detections((0, scores[0], 0, 0), (0, scores[1], 0, 0))).tolist() == expected


def test_displaced_detections_keep_their_id_if_asked_and_the_best_is_remembered() -> None:
    tracker = Tracker(AssociationOptions(keep_displaced=True))
    tracker.update(detections((0, 0.9, 0, 0)))
    claims = detections((0, 0.5, 0, 0), (1, 0.4, 0, 0), (0, 0.8, 0, 0), (2, 0.1, 0, 0))
    assert tracker.update(claims).tolist() == [0, -1, 0, -1]
    assert tracker._memory.boxes.tolist() == [[0, 0, 10, 10]]


def test_dropped_detection_leaves_no_trace_in_the_memory() -> None:
    tracker = Tracker()
    tracker.update(detections((0, 0.9, 0, 0)))
    tracker.update(detections((0, 0.9, 0, 0), (3, 0.1, 0, 0)))
    assert tracker._memory.boxes.tolist() == [[0, 0, 10, 10]]


@pytest.mark.parametrize("retained, unseen, expected", [(20, 19, 0), (20, 20, 2), (1, 0, 0), (1, 1, 2)])
def test_forgets_after_exactly_so_many_unseen_frames(retained: int, unseen: int, expected: int) -> None:
    tracker = Tracker(AssociationOptions(frames_retained=retained))
    tracker.update(detections((0, 0.9, 0, 0), (80, 0.9, 1, 2)))
    for _ in range(unseen):
        tracker.update(detections((80, 0.9, 1, 2)))
    assert tracker.update(detections((0, 0.9, 0, 0))).tolist() == [expected]


def test_frames_without_any_detection_count_but_forget_nothing() -> None:
    tracker = Tracker()
    tracker.update(detections((0, 0.9, 0, 0), (80, 0.9, 1, 2)))
    for _ in range(30):
        tracker.update(detections())
    assert tracker.update(detections((80, 0.9, 1, 2))).tolist() == [1]
    assert tracker.update(detections((0, 0.9, 0, 0))).tolist() == [2], "unseen for 32 frames by now"


def test_never_forgetting_and_reset() -> None:
    tracker = Tracker(AssociationOptions(frames_retained=0))
    tracker.update(detections((0, 0.9, 0, 0), (20, 0.9, 0, 1)))
    for _ in range(100):
        tracker.update(detections())
    assert tracker.update(detections((20, 0.9, 0, 1))).tolist() == [1]
    tracker.reset()
    assert tracker.update(detections((20, 0.9, 0, 1))).tolist() == [0]


def starts(
    options: AssociationOptions,
    columns: Sequence[int] = (0, 0, 0, 1),
    scores: Sequence[float] = (0.5, 0.9, 0.3, 0.2),
) -> list[int]:
    """Two detections in one place, a third apart, and a fourth on top of the third that got object 1."""
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 11], [50, 0, 60, 10], [51, 0, 61, 10]], np.float32)
    frame = Frame(boxes, np.array(scores, np.float32), np.zeros(4, int), np.zeros((4, 1)))
    return only_good_starts(np.array(columns), frame, options).tolist()


def test_a_duplicate_keeps_nobody_out() -> None:
    """Three in a row, each close to the next: the middle one is dropped, the far end stays."""
    boxes = np.array([[0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10]], np.float32)
    frame = Frame(boxes, np.array([0.9, 0.8, 0.7]), np.zeros(3, int), np.zeros((3, 1)))
    options = AssociationOptions(duplicate_iou=0.5)
    assert only_good_starts(np.zeros(3, int), frame, options).tolist() == [0, DROPPED, 0]


def test_who_may_start_an_object() -> None:
    assert starts(AssociationOptions()) == [0, 0, 0, 1]
    assert starts(AssociationOptions(new_score=0.5)) == [0, 0, DROPPED, 1]
    assert starts(AssociationOptions(high_score=0.6)) == [DROPPED, 0, DROPPED, 1]
    assert starts(AssociationOptions(duplicate_iou=0.8)) == [DROPPED, 0, DROPPED, 1]
    assert starts(AssociationOptions(duplicate_iou=0.85)) == [DROPPED, 0, 0, 1]  # 9 / 11 is less
    assert starts(AssociationOptions(duplicate_iou=0.95)) == [0, 0, 0, 1]
    assert starts(AssociationOptions(duplicate_iou=0.5, new_score=0.6)) == [DROPPED, 0, DROPPED, 1]
    # A dropped detection excludes no other, and of a tie the first stays.
    dropped = starts(AssociationOptions(duplicate_iou=0.5), columns=(0, DROPPED, 0, 0))
    assert dropped == [0, DROPPED, 0, DROPPED]
    equal = starts(AssociationOptions(duplicate_iou=0.5), scores=(0.9, 0.9, 0.3, 0.2))
    assert equal == [0, DROPPED, DROPPED, 1]
