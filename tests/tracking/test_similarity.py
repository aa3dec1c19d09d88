"""Match scores against loops over detections and objects in Python numbers, and against values by hand."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from masktrack_jax.tracking.assignment import claim
from masktrack_jax.tracking.association import DEFAULT, AssociationOptions
from masktrack_jax.tracking.memory import Frame, Memory
from masktrack_jax.tracking.similarity import SIMILARITIES, box_iou, match_scores
from tests.helpers.tracking import SIZE, random_frame, random_memory

NO_CUES = dict(score_weight=0.0, iou_weight=0.0, label_weight=0.0)
INF = math.inf


def slow_products(
    frame: Frame,
    memory: Memory,
    form: Callable[[np.ndarray], np.ndarray],
    reduce: Callable[[Sequence[float]], float],
) -> list[list[float]]:
    """[detection][object]: products with every held look, one by one, then their mean or maximum."""
    return [
        [
            reduce([sum(map(float, form(e) * form(look))) for look in memory.looks[j, : memory.held[j]]])
            for j in range(len(memory))
        ]
        for e in frame.embeddings
    ]


def slow_similarity(
    name: str, frame: Frame, memory: Memory, threshold: float, reduce: Callable[[Sequence[float]], float]
) -> list[list[float]]:
    form = (lambda e: e / math.sqrt(sum(x * x for x in e))) if name == "cosine" else lambda e: e
    products = slow_products(frame, memory, form, reduce)
    rows = [[threshold, *row] for row in products]
    n, k = len(products), len(memory)
    if name == "softmax":
        totals = [sum(math.exp(x) for x in row) for row in rows]
        return [[x - math.log(total) for x in row] for row, total in zip(rows, totals)]
    if name == "bisoftmax":
        for i, j in product(range(n), range(k)):
            over_objects = math.exp(products[i][j]) / sum(math.exp(products[i][m]) for m in range(k))
            over_detections = math.exp(products[i][j]) / sum(math.exp(products[m][j]) for m in range(n))
            rows[i][j + 1] = (over_objects + over_detections) / 2
    if name == "none":
        rows = [[threshold] + [0.0] * k for _ in range(n)]
    return rows


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("bank_compare, reduce", [("mean", mean), ("max", max)])
@pytest.mark.parametrize("name", sorted(SIMILARITIES))
def test_similarities_equal_loops(
    name: str, bank_compare: str, reduce: Callable[[Sequence[float]], float]
) -> None:
    options = AssociationOptions(similarity=name, bank_compare=bank_compare, new_threshold=0.3, **NO_CUES)
    for seed, (n, k) in enumerate([(3, 4), (5, 2), (1, 1), (4, 0), (0, 3), (0, 0)]):
        rng = np.random.default_rng(seed)
        frame, memory = random_frame(rng, n), random_memory(rng, k)
        got = match_scores(frame, memory, options)
        assert got.shape == (n, 1 + k) and got.dtype == np.float64
        wanted = np.reshape(slow_similarity(name, frame, memory, 0.3, reduce), (n, 1 + k))
        np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_cosine_with_an_empty_embedding_is_zero() -> None:
    frame = Frame(np.zeros((1, 4)), np.ones(1), np.zeros(1, int), np.zeros((1, SIZE), np.float32))
    memory = random_memory(np.random.default_rng(0), 2)
    options = AssociationOptions(similarity="cosine", new_threshold=0.3, **NO_CUES)
    np.testing.assert_allclose(match_scores(frame, memory, options), [[0.3, 0, 0]], atol=1e-7)


def test_without_use_embedding_the_similarity_is_none() -> None:
    rng = np.random.default_rng(0)
    frame, memory = random_frame(rng, 3), random_memory(rng, 4)
    without, none = (AssociationOptions(similarity="cosine", use_embedding=False), AssociationOptions("none"))
    np.testing.assert_array_equal(match_scores(frame, memory, without), match_scores(frame, memory, none))


def slow_iou(a: np.ndarray, b: np.ndarray) -> float:
    width, height = (max(min(a[i + 2], b[i + 2]) - max(a[i], b[i]), 0) for i in (0, 1))
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return width * height / (sum(areas) - width * height)


@pytest.mark.parametrize("name", sorted(SIMILARITIES))
@pytest.mark.parametrize("on", list(product([False, True], repeat=5)))
def test_every_rule_takes_every_cue(name: str, on: tuple[bool, ...]) -> None:
    """Score, IoU, fading of the IoU, label, and label as a constraint: each adds its own term only."""
    score, iou, fade, label, constraint = on
    weights = dict(score_weight=0.7 * score, iou_weight=1.5 * iou, label_weight=4.0 * label)
    options = AssociationOptions(similarity=name, **weights, iou_frames=3 * fade, same_label=constraint)
    rng = np.random.default_rng(1)
    frame, memory = random_frame(rng, 4), random_memory(rng, 5)
    memory.unseen[:] = range(5)
    got = match_scores(frame, memory, options)
    plain = replace(options, **NO_CUES, iou_frames=0, same_label=False)
    wanted = match_scores(frame, memory, plain)
    for i, j in product(range(4), range(6)):
        wanted[i, j] += weights["score_weight"] * math.log(frame.scores[i])
        same = j == 0 or frame.labels[i] == memory.labels[j - 1]
        wanted[i, j] += weights["label_weight"] * same
        if j > 0:
            rest = max(1 - memory.unseen[j - 1] / 3, 0) if fade else 1
            wanted[i, j] += weights["iou_weight"] * rest * slow_iou(frame.boxes[i], memory.boxes[j - 1])
        if constraint and not same:
            wanted[i, j] = -INF
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert (got == -INF).any() == constraint


def one_object(embedding: list[float]) -> Memory:
    seen = Frame(*map(np.array, ([[0.0, 0, 10, 10]], [0.5], [4], [embedding])))
    return Memory.of(np.array([0]), seen, size=1)


def test_match_scores_by_hand() -> None:
    memory = one_object([2.0])
    frame = Frame(np.array([[0.0, 0, 10, 5]]), np.array([0.5]), np.array([4]), np.array([[1.5]]))
    scores = match_scores(frame, memory, AssociationOptions())
    total = math.log(1 + math.exp(3))
    np.testing.assert_allclose(scores, [[-total + math.log(0.5) + 10, 3 - total + math.log(0.5) + 1 + 10]])


def test_low_scores_count_as_they_are() -> None:
    faint, fainter = (
        match_scores(
            Frame(np.zeros((1, 4)), np.array([s]), np.array([4]), np.ones((1, 1))), one_object([2.0]), DEFAULT
        )
        for s in (1e-3, 1e-4)
    )
    np.testing.assert_allclose(faint - fainter, math.log(10))


def test_large_logits_and_zero_scores_stay_finite() -> None:
    memory = one_object([3e3])
    frame = Frame(np.array([[0.0, 0, 10, 10]]), np.array([0.0]), np.array([4]), np.array([[1.0]]))
    scores = match_scores(frame, memory, AssociationOptions())
    assert np.isfinite(scores).all()
    assert claim(scores).tolist() == [1]


def test_iou_of_empty_boxes_is_zero() -> None:
    assert box_iou([[5, 5, 5, 5]], [[5, 5, 5, 5], [0, 0, 10, 10]]).tolist() == [[0, 0]]
