"""Similarities, assignments and memories against loops and enumeration."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from masktrack_jax.tracking.assignment import ASSIGNMENTS, DROPPED
from masktrack_jax.tracking.association import AssociationOptions, match, only_good_starts
from masktrack_jax.tracking.memory import MEMORIES, Frame, Memory, room
from masktrack_jax.tracking.similarity import SIMILARITIES, match_scores

SIZE, LOOKS = 4, 3
NO_CUES = dict(score_weight=0.0, iou_weight=0.0, label_weight=0.0)
INF = math.inf


def random_frame(rng, n):
    corners = rng.uniform(0, 60, (n, 2))
    return Frame(
        np.hstack([corners, corners + rng.uniform(5, 40, (n, 2))]).astype(np.float32),
        rng.uniform(0.05, 1, n).astype(np.float32),
        rng.integers(0, 2, n),
        rng.normal(0, 1, (n, SIZE)).astype(np.float32),
    )


def random_memory(rng, k, looks=LOOKS):
    """k objects with one to `looks` looks, unseen for up to four frames."""
    memory = Memory.of(np.arange(k) + 10, random_frame(rng, k), looks)
    memory.held[:] = rng.integers(1, looks + 1, k)
    for i, held in enumerate(memory.held):
        memory.looks[i, :held] = rng.normal(0, 1, (held, SIZE))
    memory.unseen[:] = rng.integers(0, 5, k)
    return memory


def slow_products(frame, memory, form, reduce):
    """[detection][object]: products with every look that is held, one by one, then their mean or maximum."""
    return [
        [
            reduce([sum(map(float, form(e) * form(look))) for look in memory.looks[j, : memory.held[j]]])
            for j in range(len(memory))
        ]
        for e in frame.embeddings
    ]


def slow_similarity(name, frame, memory, threshold, reduce):
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


def mean(values):
    return sum(values) / len(values)


@pytest.mark.parametrize("bank_compare, reduce", [("mean", mean), ("max", max)])
@pytest.mark.parametrize("name", sorted(SIMILARITIES))
def test_similarities_equal_loops(name, bank_compare, reduce):
    options = AssociationOptions(similarity=name, bank_compare=bank_compare, new_threshold=0.3, **NO_CUES)
    for seed, (n, k) in enumerate([(3, 4), (5, 2), (1, 1), (4, 0), (0, 3), (0, 0)]):
        rng = np.random.default_rng(seed)
        frame, memory = random_frame(rng, n), random_memory(rng, k)
        got = match_scores(memory, *frame, options)
        assert got.shape == (n, 1 + k) and got.dtype == np.float64
        wanted = np.reshape(slow_similarity(name, frame, memory, 0.3, reduce), (n, 1 + k))
        np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_cosine_with_an_empty_embedding_is_zero():
    frame = Frame(np.zeros((1, 4)), np.ones(1), np.zeros(1, int), np.zeros((1, SIZE), np.float32))
    memory = random_memory(np.random.default_rng(0), 2)
    options = AssociationOptions(similarity="cosine", new_threshold=0.3, **NO_CUES)
    np.testing.assert_allclose(match_scores(memory, *frame, options), [[0.3, 0, 0]], atol=1e-7)


def test_without_use_embedding_the_similarity_is_none():
    rng = np.random.default_rng(0)
    frame, memory = random_frame(rng, 3), random_memory(rng, 4)
    without, none = (AssociationOptions(similarity="cosine", use_embedding=False), AssociationOptions("none"))
    np.testing.assert_array_equal(match_scores(memory, *frame, without), match_scores(memory, *frame, none))


def slow_iou(a, b):
    width, height = (max(min(a[i + 2], b[i + 2]) - max(a[i], b[i]), 0) for i in (0, 1))
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return width * height / (sum(areas) - width * height)


@pytest.mark.parametrize("name", sorted(SIMILARITIES))
@pytest.mark.parametrize("on", list(product([False, True], repeat=5)))
def test_every_rule_takes_every_cue(name, on):
    """Score, IoU, fading of the IoU, label and label as a constraint: each adds its own and nothing else."""
    score, iou, fade, label, constraint = on
    weights = dict(score_weight=0.7 * score, iou_weight=1.5 * iou, label_weight=4.0 * label)
    options = AssociationOptions(similarity=name, **weights, iou_frames=3 * fade, same_label=constraint)
    rng = np.random.default_rng(1)
    frame, memory = random_frame(rng, 4), random_memory(rng, 5)
    memory.unseen[:] = range(5)
    got = match_scores(memory, *frame, options)
    plain = replace(options, **NO_CUES, iou_frames=0, same_label=False)
    wanted = match_scores(memory, *frame, plain)
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


def value(columns, scores, weights):
    return sum(w * (row[c] - row[0]) for w, row, c in zip(weights, scores, columns))


def one_to_one(n, k):
    """Every way to give n detections different objects of k, or "new"."""
    for columns in product(range(1 + k), repeat=n):
        objects = [c for c in columns if c > 0]
        if len(objects) == len(set(objects)):
            yield columns


@pytest.mark.parametrize("alpha", [0.0, 1.0, 0.5])
@pytest.mark.parametrize("n, k", [(3, 3), (4, 2), (2, 4), (1, 3), (4, 3), (3, 0), (0, 3), (0, 0)])
def test_hungarian_is_the_best_of_all_assignments(n, k, alpha):
    options = AssociationOptions(score_weight=alpha)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        scores, confidence = rng.normal(0, 1, (n, 1 + k)), rng.uniform(0.1, 1, n)
        scores[:, 1:][rng.random((n, k)) < 0.2] = -INF
        columns = ASSIGNMENTS["hungarian"](scores, confidence, options)
        assert columns.shape == (n,) and tuple(columns.tolist()) in set(one_to_one(n, k))
        best = max(one_to_one(n, k), key=lambda c: value(c, scores, confidence**alpha))
        assert columns.tolist() == list(best)


def test_hungarian_gives_the_second_choice_where_that_is_best_for_both():
    scores = np.array([[0.0, 5.0, 4.0], [0.0, 4.5, 1.0]])
    even = np.ones(2)
    assert ASSIGNMENTS["hungarian"](scores, even, AssociationOptions()).tolist() == [2, 1]
    assert ASSIGNMENTS["in_turn"](scores, even, AssociationOptions()).tolist() == [1, 2]
    assert ASSIGNMENTS["greedy"](scores, even, AssociationOptions()).tolist() == [1, DROPPED]
    # A confident detection has the say.
    assert ASSIGNMENTS["hungarian"](scores, np.array([1.0, 0.1]), AssociationOptions()).tolist() == [1, 2]


def slow_first_choice(scores, value):
    """Each stands for its best column only; an object goes to the first of highest `value` (n, 1 + k)."""
    best = [max(range(scores.shape[1]), key=lambda j: scores[i, j]) for i in range(len(scores))]
    columns = []
    for i, j in enumerate(best):
        rivals = [other for other in range(len(scores)) if best[other] == j]
        wins = j == 0 or i == max(rivals, key=lambda other: value[other, j])
        columns.append(j if wins else DROPPED)
    return columns


@pytest.mark.parametrize("name", ["hungarian", "in_turn"])
def test_without_second_choices_each_stands_for_its_best(name):
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


def slow_in_turn(scores, confidence):
    columns, free = [0] * len(scores), set(range(1, scores.shape[1]))
    for i in sorted(range(len(scores)), key=lambda i: -confidence[i]):
        columns[i] = max([0, *sorted(free)], key=lambda j: scores[i, j])
        free.discard(columns[i])
    return columns


@pytest.mark.parametrize("n, k", [(5, 3), (3, 5), (4, 0), (0, 4)])
def test_in_turn_equals_a_loop(n, k):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        scores = np.round(rng.normal(0, 1, (n, 1 + k)), 1)  # with ties
        confidence = np.round(rng.uniform(0.1, 1, n), 1)
        columns = ASSIGNMENTS["in_turn"](scores, confidence, AssociationOptions())
        assert columns.tolist() == slow_in_turn(scores, confidence)


@pytest.mark.parametrize("name", sorted(ASSIGNMENTS))
@pytest.mark.parametrize("high_score", [0.0, 0.5])
def test_every_assignment_on_the_edge(name, high_score):
    options = AssociationOptions(assignment=name, high_score=high_score)

    def columns(scores):
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
def test_low_scores_get_what_the_others_left(name):
    options = AssociationOptions(assignment=name, high_score=0.5)
    scores = np.array([[0, 9.0, 8.0, 0], [0, 3.0, 1.0, 2.0], [0, 1.0, 4.0, 0]])
    # The first one fits object 1 best, but it comes second; object 3 and its own second choice are left.
    assert match(scores, np.array([0.4, 0.6, 0.5]), options).tolist() == [0, 1, 2]
    scores[0, 3] = 0.5
    assert match(scores, np.array([0.4, 0.6, 0.5]), options).tolist() == [3, 1, 2]
    everyone = match(scores, np.array([0.4, 0.6, 0.5]), replace(options, high_score=0.4))
    assert everyone[0] == (3 if name == "in_turn" else 1), "0.4 is not below 0.4"


def starts(options, columns=(0, 0, 0, 1), scores=(0.5, 0.9, 0.3, 0.2)):
    """Two detections in one place, one apart, and one on top of the third that got object 1."""
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 11], [50, 0, 60, 10], [51, 0, 61, 10]], np.float32)
    return only_good_starts(np.array(columns), boxes, np.array(scores, np.float32), options).tolist()


def test_a_duplicate_keeps_nobody_out():
    """Three in a row, each close to the next: the one in the middle goes, the far end stays."""
    boxes = np.array([[0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10]], np.float32)
    options, scores = AssociationOptions(duplicate_iou=0.5), np.array([0.9, 0.8, 0.7])
    assert only_good_starts(np.zeros(3, int), boxes, scores, options).tolist() == [0, DROPPED, 0]


def test_who_may_start_an_object():
    assert starts(AssociationOptions()) == [0, 0, 0, 1]
    assert starts(AssociationOptions(new_score=0.5)) == [0, 0, DROPPED, 1]
    assert starts(AssociationOptions(high_score=0.6)) == [DROPPED, 0, DROPPED, 1]
    assert starts(AssociationOptions(duplicate_iou=0.8)) == [DROPPED, 0, DROPPED, 1]
    assert starts(AssociationOptions(duplicate_iou=0.85)) == [DROPPED, 0, 0, 1]  # 9 / 11 is less
    assert starts(AssociationOptions(duplicate_iou=0.95)) == [0, 0, 0, 1]
    assert starts(AssociationOptions(duplicate_iou=0.5, new_score=0.6)) == [DROPPED, 0, DROPPED, 1]
    # One that was dropped keeps nobody out, and a tie is the first one's.
    dropped = starts(AssociationOptions(duplicate_iou=0.5), columns=(0, DROPPED, 0, 0))
    assert dropped == [0, DROPPED, 0, DROPPED]
    equal = starts(AssociationOptions(duplicate_iou=0.5), scores=(0.9, 0.9, 0.3, 0.2))
    assert equal == [0, DROPPED, DROPPED, 1]


def slow_look(name, sights, options):
    """What is remembered of an object after its sights (embeddings): a list of looks, the newest first."""
    if name == "last":
        return [sights[-1]]
    if name == "bank":
        return sights[::-1][: options.bank_size]
    look = sights[0]
    for sight in sights[1:]:
        look = (1 - options.average_rate) * look + options.average_rate * sight
    return [look]


@pytest.mark.parametrize("name", sorted(MEMORIES))
def test_memories_equal_loops(name):
    options = AssociationOptions(memory=name, bank_size=3, average_rate=0.7)
    rng = np.random.default_rng(0)
    first = random_frame(rng, 4)
    memory = Memory.of(np.arange(4), first, room(options))
    sights = [[embedding] for embedding in first.embeddings]
    for _ in range(7):
        seen = np.flatnonzero(rng.random(4) < [0.9, 0.6, 0.3, 0.0])
        frame = random_frame(rng, len(seen))
        memory.see(seen, frame, options)
        np.testing.assert_array_equal(memory.boxes[seen], frame.boxes)
        for i, embedding in zip(seen, frame.embeddings):
            sights[i].append(embedding)
    assert min(map(len, sights)) == 1 and max(map(len, sights)) > 3
    for i in range(4):
        wanted = slow_look(name, sights[i], options)
        assert memory.held[i] == len(wanted)
        np.testing.assert_allclose(memory.looks[i, : len(wanted)], wanted, atol=1e-6)
        assert not memory.looks[i, len(wanted) :].any()
