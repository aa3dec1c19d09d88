"""Assignments against the enumeration of all of them, against loops, and in cases worked out by hand."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from masktrack_jax.tracking.assignment import ASSIGNMENTS, DROPPED
from masktrack_jax.tracking.association import AssociationOptions, match

INF = math.inf


def value(columns: Sequence[int], scores: np.ndarray, weights: np.ndarray) -> float:
    return sum(w * (row[c] - row[0]) for w, row, c in zip(weights, scores, columns))


def one_to_one(n: int, k: int) -> Iterator[tuple[int, ...]]:
    """Every way to give n detections different objects of k, or "new"."""
    for columns in product(range(1 + k), repeat=n):
        objects = [c for c in columns if c > 0]
        if len(objects) == len(set(objects)):
            yield columns


@pytest.mark.parametrize("alpha", [0.0, 1.0, 0.5])
@pytest.mark.parametrize("n, k", [(3, 3), (4, 2), (2, 4), (1, 3), (4, 3), (3, 0), (0, 3), (0, 0)])
def test_hungarian_is_the_best_of_all_assignments(n: int, k: int, alpha: float) -> None:
    options = AssociationOptions(score_weight=alpha)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        scores, confidence = rng.normal(0, 1, (n, 1 + k)), rng.uniform(0.1, 1, n)
        scores[:, 1:][rng.random((n, k)) < 0.2] = -INF
        columns = ASSIGNMENTS["hungarian"](scores, confidence, options)
        assert columns.shape == (n,) and tuple(columns.tolist()) in set(one_to_one(n, k))
        best = max(one_to_one(n, k), key=lambda c: value(c, scores, confidence**alpha))
        assert columns.tolist() == list(best)


def test_hungarian_gives_the_second_choice_where_that_is_best_for_both() -> None:
    scores = np.array([[0.0, 5.0, 4.0], [0.0, 4.5, 1.0]])
    even = np.ones(2)
    assert ASSIGNMENTS["hungarian"](scores, even, AssociationOptions()).tolist() == [2, 1]
    assert ASSIGNMENTS["in_turn"](scores, even, AssociationOptions()).tolist() == [1, 2]
    assert ASSIGNMENTS["greedy"](scores, even, AssociationOptions()).tolist() == [1, DROPPED]
    # A confident detection decides.
    assert ASSIGNMENTS["hungarian"](scores, np.array([1.0, 0.1]), AssociationOptions()).tolist() == [1, 2]


def slow_first_choice(scores: np.ndarray, value: np.ndarray) -> list[int]:
    """Each claims its best column only; an object goes to the first claim of highest `value` (n, 1 + k)."""
    best = [max(range(scores.shape[1]), key=lambda j: scores[i, j]) for i in range(len(scores))]
    columns = []
    for i, j in enumerate(best):
        rivals = [other for other in range(len(scores)) if best[other] == j]
        wins = j == 0 or i == max(rivals, key=lambda other: value[other, j])
        columns.append(j if wins else DROPPED)
    return columns


@pytest.mark.parametrize("name", ["hungarian", "in_turn"])
def test_without_second_choices_each_stands_for_its_best(name: str) -> None:
    options, dropped = AssociationOptions(second_choice=False), 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        n, k = rng.integers(0, 9), rng.integers(0, 6)
        scores, confidence = rng.normal(0, 1, (n, 1 + k)), rng.uniform(0.1, 1, n)
        value = confidence[:, None] * np.ones(1 + k)
        if name == "hungarian":
            value = value * (scores - scores[:, :1])
        wanted = slow_first_choice(scores, value)
        assert ASSIGNMENTS[name](scores, confidence, options).tolist() == wanted
        dropped += wanted.count(DROPPED)
    assert dropped > 100


def slow_in_turn(scores: np.ndarray, confidence: np.ndarray) -> list[int]:
    columns, free = [0] * len(scores), set(range(1, scores.shape[1]))
    for i in sorted(range(len(scores)), key=lambda i: -confidence[i]):
        columns[i] = max([0, *sorted(free)], key=lambda j: scores[i, j])
        free.discard(columns[i])
    return columns


@pytest.mark.parametrize("n, k", [(5, 3), (3, 5), (4, 0), (0, 4)])
def test_in_turn_equals_a_loop(n: int, k: int) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        scores = np.round(rng.normal(0, 1, (n, 1 + k)), 1)  # with ties
        confidence = np.round(rng.uniform(0.1, 1, n), 1)
        columns = ASSIGNMENTS["in_turn"](scores, confidence, AssociationOptions())
        assert columns.tolist() == slow_in_turn(scores, confidence)


@pytest.mark.parametrize("name", sorted(ASSIGNMENTS))
@pytest.mark.parametrize("high_score", [0.0, 0.5])
def test_every_assignment_on_the_edge(name: str, high_score: float) -> None:
    options = AssociationOptions(assignment=name, high_score=high_score)

    def columns(scores: Sequence[Sequence[float]]) -> list[int]:
        scores = np.array(scores, float).reshape(-1, 1 + (np.size(scores[0]) - 1 if len(scores) else 2))
        return match(scores, np.linspace(0.9, 0.3, len(scores)), options).tolist()

    assert columns([]) == []
    assert columns([[0.0], [0.0]]) == [0, 0], "nothing remembered"
    assert columns([[1, 0, 0], [1, 0, 0]]) == [0, 0], "all new, all lost"
    assert columns([[1, 1, 1]]) == [0], "new wins a tie"
    assert columns([[0, 1, 1]]) == [1], "of equal objects the first"
    assert columns([[0, 1], [0, 1]]) in ([1, 0], [1, DROPPED]), "of equal detections the first"
    assert columns([[0, -INF, 1], [0, 1, -INF]]) == [2, 1]
    assert columns([[-1, -INF], [-1, -INF]]) == [0, 0], "no object of its label"


@pytest.mark.parametrize("name", sorted(ASSIGNMENTS))
def test_low_scores_get_what_the_others_left(name: str) -> None:
    options = AssociationOptions(assignment=name, high_score=0.5)
    scores = np.array([[0, 9.0, 8.0, 0], [0, 3.0, 1.0, 2.0], [0, 1.0, 4.0, 0]])
    # The first one fits object 1 best, but it comes second; object 3 and its own second choice are left.
    assert match(scores, np.array([0.4, 0.6, 0.5]), options).tolist() == [0, 1, 2]
    scores[0, 3] = 0.5
    assert match(scores, np.array([0.4, 0.6, 0.5]), options).tolist() == [3, 1, 2]
    everyone = match(scores, np.array([0.4, 0.6, 0.5]), replace(options, high_score=0.4))
    assert everyone[0] == (3 if name == "in_turn" else 1), "0.4 is not below 0.4"
