"""Assign detections to objects by their match scores; `ASSIGNMENTS` holds the rules by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from masktrack_jax.tracking.options import AssociationOptions

DROPPED = -1  # the column and the id of a detection without an object


class Assignment(Protocol):
    """Return the column (n,) assigned to each of n detections: 0 for "new", 1 + j for object j, or `DROPPED`.

    scores: match scores (n, 1 + k), column 0 for "new". confidence: detection scores (n,).
    """

    def __call__(
        self, scores: np.ndarray, confidence: np.ndarray, options: AssociationOptions, /
    ) -> np.ndarray: ...


def greedy(scores: np.ndarray, confidence: np.ndarray, options: AssociationOptions) -> np.ndarray:
    """The paper's rule: every detection claims its best column; see `claim`."""
    return claim(scores, options.keep_displaced)


def hungarian(scores: np.ndarray, confidence: np.ndarray, options: AssociationOptions) -> np.ndarray:
    """The one-to-one assignment with the largest Σ confidence^α · (match score − match score of "new").

    Any number of detections may be "new", so a detection is matched only if that is better than "new". α is
    `score_weight`. The confidence is a factor here, since the term α log(score) of the match scores is the
    same in all columns of a row and would have no effect.
    """
    from scipy.optimize import linear_sum_assignment  # not at the top: the import takes 0.25 s

    better = np.maximum(open_choices(scores, options)[:, 1:] - scores[:, :1], 0)
    gain = better * confidence[:, None] ** options.score_weight
    rows, objects = linear_sum_assignment(gain, maximize=True)
    columns = np.zeros(len(scores), np.int64)
    matched = gain[rows, objects] > 0
    columns[rows[matched]] = objects[matched] + 1
    return without_losers(columns, scores, options)


def in_turn(scores: np.ndarray, confidence: np.ndarray, options: AssociationOptions) -> np.ndarray:
    """QDTrack's rule: in order of descending confidence, each detection gets the best column left."""
    left, columns = open_choices(scores, options), np.zeros(len(scores), np.int64)
    for i in np.argsort(-confidence, kind="stable"):
        columns[i] = left[i].argmax()
        if columns[i] > 0:
            left[:, columns[i]] = -np.inf
    return without_losers(columns, scores, options)


ASSIGNMENTS: dict[str, Assignment] = {"greedy": greedy, "hungarian": hungarian, "in_turn": in_turn}


def open_choices(scores: np.ndarray, options: AssociationOptions) -> np.ndarray:
    """Return a copy of scores (n, 1 + k). Without `second_choice`, all but the best of each row are −inf."""
    if options.second_choice:
        return scores.copy()
    best = scores.argmax(axis=1)[:, None]
    return np.where(np.arange(scores.shape[1]) == best, scores, -np.inf)


def without_losers(columns: np.ndarray, scores: np.ndarray, options: AssociationOptions) -> np.ndarray:
    """Return `columns` (n,). Without `second_choice`, rows that did not get their best one are `DROPPED`."""
    got = columns == scores.argmax(axis=1)
    return columns if options.second_choice else np.where(got, columns, DROPPED)


def claim(scores: np.ndarray, keep_displaced: bool = False) -> np.ndarray:
    """Return the column (n,) assigned to each detection by its match scores (n, 1 + k), or `DROPPED`.

    Every detection claims its best column. Any number of detections may claim column 0, "new". An object is
    assigned to the detection with the highest match score, the first one among equals. The others are dropped
    without a second choice (the rule of mmtracking and the authors). With `keep_displaced`, a detection also
    keeps the object if it beat all detections before it. Then a column may occur several times; its last
    detection is the best one.
    """
    columns, best = scores.argmax(axis=1), scores.max(axis=1)
    earlier = np.tri(len(scores), k=-1, dtype=bool) & (columns[:, None] == columns)
    beaten = (earlier & (best >= best[:, None])).any(axis=1)  # an earlier detection is better
    if not keep_displaced:
        beaten |= (earlier & (best < best[:, None])).any(axis=0)  # a later detection is better
    return np.where(beaten & (columns > 0), DROPPED, columns)
