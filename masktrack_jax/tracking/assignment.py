"""Which object each detection gets, given their match scores: a function of `ASSIGNMENTS`, chosen by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from masktrack_jax.tracking.association import AssociationOptions

DROPPED = -1  # the column and the id of a detection without an object


class Assignment(Protocol):
    """Return the column (n,) that each of n detections gets: 0 new, 1 + j the object j, or `DROPPED`.

    scores: match scores (n, 1 + k), column 0 for "new". confidence: detection scores (n,).
    """

    def __call__(
        self, scores: np.ndarray, confidence: np.ndarray, options: AssociationOptions, /
    ) -> np.ndarray: ...


def greedy(scores: np.ndarray, confidence: np.ndarray, options: AssociationOptions) -> np.ndarray:
    """Every detection claims its best column, see `claim`: the paper's."""
    return claim(scores, options.keep_displaced)


def hungarian(scores: np.ndarray, confidence: np.ndarray, options: AssociationOptions) -> np.ndarray:
    """The one-to-one assignment with the largest Σ confidence^α · (match score − match score of "new").

    "New" is free to all, so only pairs that are better than "new" are made. α is `score_weight`. The score
    cue must be a factor here: the α log(score) in the match scores is the same in all columns of a row.
    """
    from scipy.optimize import linear_sum_assignment  # not at the top: it takes a quarter of a second

    better = np.maximum(open_choices(scores, options)[:, 1:] - scores[:, :1], 0)
    gain = better * confidence[:, None] ** options.score_weight
    rows, objects = linear_sum_assignment(gain, maximize=True)
    columns = np.zeros(len(scores), np.int64)
    matched = gain[rows, objects] > 0
    columns[rows[matched]] = objects[matched] + 1
    return without_losers(columns, scores, options)


def in_turn(scores: np.ndarray, confidence: np.ndarray, options: AssociationOptions) -> np.ndarray:
    """Detections take the best column left, in the order of falling detection scores (QDTrack)."""
    left, columns = open_choices(scores, options), np.zeros(len(scores), np.int64)
    for i in np.argsort(-confidence, kind="stable"):
        columns[i] = left[i].argmax()
        if columns[i] > 0:
            left[:, columns[i]] = -np.inf
    return without_losers(columns, scores, options)


ASSIGNMENTS: dict[str, Assignment] = {"greedy": greedy, "hungarian": hungarian, "in_turn": in_turn}


def open_choices(scores: np.ndarray, options: AssociationOptions) -> np.ndarray:
    """Return a copy of scores (n, 1 + k). Without `second_choice` all but each row's best are −inf."""
    if options.second_choice:
        return scores.copy()
    best = scores.argmax(axis=1)[:, None]
    return np.where(np.arange(scores.shape[1]) == best, scores, -np.inf)


def without_losers(columns: np.ndarray, scores: np.ndarray, options: AssociationOptions) -> np.ndarray:
    """Return `columns` (n,). Without `second_choice` those that missed their best column are `DROPPED`."""
    got = columns == scores.argmax(axis=1)
    return columns if options.second_choice else np.where(got, columns, DROPPED)


def claim(scores: np.ndarray, keep_displaced: bool = False) -> np.ndarray:
    """Return the column (n,) that each detection gets of its match scores (n, 1 + k), or `DROPPED`.

    Every detection claims its best column. Column 0, "new", is free to all. An object goes to the detection
    with the highest match score, among equals to the first. The others are dropped: they do not fall back to
    their second choice (mmtracking's and the authors' rule). With `keep_displaced` a detection that was the
    best when its turn came keeps the object too. Then a column may occur several times; its last is the best.
    """
    columns, best = scores.argmax(axis=1), scores.max(axis=1)
    earlier = np.tri(len(scores), k=-1, dtype=bool) & (columns[:, None] == columns)
    beaten = (earlier & (best >= best[:, None])).any(axis=1)  # by an earlier one
    if not keep_displaced:
        beaten |= (earlier & (best < best[:, None])).any(axis=0)  # by a later one
    return np.where(beaten & (columns > 0), DROPPED, columns)
