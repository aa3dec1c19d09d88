"""Which object does each detection get, of their match scores: a function of `ASSIGNMENTS`, chosen by name.

Each takes match scores (n, 1 + k), column 0 for "new", detection scores (n,) and the options, and returns a
column (n,) for every detection: 0 new, `DROPPED` none.
"""

import numpy as np

DROPPED = -1  # the column and the id of a detection that has no object


def greedy(scores, confidence, options):
    """The paper's: every detection claims its best column, see `claim`."""
    return claim(scores, options.keep_displaced)


def hungarian(scores, confidence, options):
    """The one-to-one assignment with the largest Σ confidence^α · (match score − that of "new").

    "New" is free to all, so no pair is made that is not better than it. α is `score_weight`: here the score
    cue has to be a factor, as the match scores' own α log(score) is the same for all that a detection may be.
    """
    from scipy.optimize import linear_sum_assignment  # not at the top: a quarter of a second of every start

    better = np.maximum(open_choices(scores, options)[:, 1:] - scores[:, :1], 0)
    gain = better * confidence[:, None] ** options.score_weight
    rows, objects = linear_sum_assignment(gain, maximize=True)
    columns = np.zeros(len(scores), np.int64)
    matched = gain[rows, objects] > 0
    columns[rows[matched]] = objects[matched] + 1
    return without_losers(columns, scores, options)


def in_turn(scores, confidence, options):
    """Each takes the best column that is left, in the order of falling detection scores (QDTrack)."""
    left, columns = open_choices(scores, options), np.zeros(len(scores), np.int64)
    for i in np.argsort(-confidence, kind="stable"):
        columns[i] = left[i].argmax()
        if columns[i] > 0:
            left[:, columns[i]] = -np.inf
    return without_losers(columns, scores, options)


ASSIGNMENTS = {"greedy": greedy, "hungarian": hungarian, "in_turn": in_turn}


def open_choices(scores, options):
    """Return a copy of scores (n, 1 + k), without `second_choice` with −inf for all but each row's best."""
    if options.second_choice:
        return scores.copy()
    best = scores.argmax(axis=1)[:, None]
    return np.where(np.arange(scores.shape[1]) == best, scores, -np.inf)


def without_losers(columns, scores, options):
    """Return `columns` (n,); without `second_choice` with `DROPPED` for those that did not get their best."""
    got = columns == scores.argmax(axis=1)
    return columns if options.second_choice else np.where(got, columns, DROPPED)


def claim(scores, keep_displaced=False):
    """Return the column (n,) that each detection gets of its match scores (n, 1 + k); `DROPPED` if none.

    Every detection claims its best column. Column 0, "new", is free to all. An object goes to the detection
    with the highest match score, of equals to the first; the others do not fall back to their second choice
    (mmtracking's and the authors' rule). They are dropped; `keep_displaced` keeps those that were the best
    when their turn came. Then a column may occur several times, the last of them being the best.
    """
    columns, best = scores.argmax(axis=1), scores.max(axis=1)
    earlier = np.tri(len(scores), k=-1, dtype=bool) & (columns[:, None] == columns)
    beaten = (earlier & (best >= best[:, None])).any(axis=1)  # by one before it
    if not keep_displaced:
        beaten |= (earlier & (best < best[:, None])).any(axis=0)  # by one after it
    return np.where(beaten & (columns > 0), DROPPED, columns)
