"""Assignment and sampling against mmdet's rules in plain NumPy, and assignments recorded from mmdet."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masktrack_jax.ops.anchors import anchor_grid
from masktrack_jax.ops.target_assignment import assign, sample
from tests.helpers.boxes import iou_of, random_boxes

RPN = dict(positive_iou=0.7, negative_iou=0.3, min_positive_iou=0.3)
ROI = dict(positive_iou=0.5, negative_iou=0.5, min_positive_iou=0.5)
NAMES = ("positive_iou", "negative_iou", "min_positive_iou")
run_assign = jax.jit(assign, static_argnames=NAMES)
run_sample = jax.jit(sample, static_argnames=("size", "max_positive"))


def max_iou_assigner(boxes, objects, positive_iou, negative_iou, min_positive_iou):
    """mmdet's MaxIoUAssigner: 1 + object, 0 negative, -1 neither."""
    iou = np.array([[iou_of(box, target) for target in objects] for box in boxes])
    assigned = np.full(len(boxes), -1)
    best = iou.max(1)
    assigned[best < negative_iou] = 0
    positive = best >= positive_iou
    assigned[positive] = iou.argmax(1)[positive] + 1
    for k in range(len(objects)):
        if iou[:, k].max() >= min_positive_iou:
            assigned[iou[:, k] == iou[:, k].max()] = k + 1
    return assigned


def as_mmdet(assignment):
    neither = np.where(assignment.negative, 0, -1)
    return np.where(assignment.positive, assignment.target + 1, neither)


@pytest.mark.parametrize("rule", [RPN, ROI], ids=["rpn", "roi"])
def test_assignment_is_max_iou(rule):
    low_quality = 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        # Whole numbers make ties, and float32 decides as float64.
        boxes, objects = np.round(random_boxes(rng, 150)), np.round(random_boxes(rng, 6))
        boxes[:20] = np.round(objects[rng.integers(6, size=20)] + rng.normal(0, 4, (20, 4)))
        boxes[20:23] = boxes[:3]
        wanted = max_iou_assigner(boxes, objects, **rule)
        # Some objects and candidates are padding.
        padded = np.insert(objects, 2, [0, 0, 120, 200], axis=0)
        exists = np.arange(7) != 2
        valid = np.ones(153, bool)
        valid[[5, 77, 152]] = False
        candidates = np.zeros((153, 4), np.float32)
        candidates[valid] = boxes
        candidates[~valid] = objects[:3]
        found = run_assign(candidates, valid, padded, exists, **rule)
        rows = np.flatnonzero(exists)
        got = as_mmdet(found)
        got = np.where(got > 0, np.searchsorted(rows, got - 1) + 1, got)
        np.testing.assert_array_equal(got[valid], wanted)
        assert not np.any((found.positive | found.negative)[~valid])
        best = np.array([max(iou_of(b, o) for o in objects) for b in boxes])
        low_quality += np.sum((wanted > 0) & (best < rule["positive_iou"]))
    assert low_quality > 0 or rule is ROI


def test_the_later_object_wins_a_contested_candidate():
    boxes = np.array([[0, 0, 10, 10], [100, 100, 110, 110]], np.float32)
    objects = np.array([[0, 0, 10, 9], [0, 0, 10, 7]], np.float32)  # the first overlaps more
    found = run_assign(boxes, np.ones(2, bool), objects, np.ones(2, bool), **RPN)
    assert as_mmdet(found).tolist() == [2, 0]
    assert as_mmdet(found).tolist() == max_iou_assigner(boxes, objects, **RPN).tolist()


def test_thresholds_belong_to_positives_and_to_neither():
    objects = np.array([[0, 0, 10, 1]], np.float32)
    boxes = np.array([[0, 0, w, 1] for w in (10, 7, 5, 3, 2)], np.float32)  # IoU w / 10
    for rule, wanted in ((RPN, [1, 1, -1, -1, 0]), (ROI, [1, 1, 1, 0, 0])):
        found = run_assign(boxes, np.ones(5, bool), objects, np.ones(1, bool), **rule)
        assert as_mmdet(found).tolist() == wanted == max_iou_assigner(boxes, objects, **rule).tolist()


def test_without_objects_every_candidate_is_negative():
    boxes = random_boxes(np.random.default_rng(0), 10)
    valid = np.arange(10) < 7
    found = run_assign(boxes, valid, np.zeros((3, 4), np.float32), np.zeros(3, bool), **RPN)
    assert not np.any(found.positive)
    np.testing.assert_array_equal(found.negative, valid)


def test_an_object_that_nothing_overlaps_claims_nothing():
    boxes, objects = np.array([[0, 0, 9, 9]], np.float32), np.array([[50, 50, 60, 60]], np.float32)
    found = run_assign(boxes, np.ones(1, bool), objects, np.ones(1, bool), **RPN)
    assert as_mmdet(found).tolist() == [0]


@pytest.mark.parametrize(
    "positives, negatives, wanted",
    [
        (40, 200, (16, 48)),
        (5, 200, (5, 59)),
        (40, 10, (16, 10)),
        (0, 200, (0, 64)),
        (3, 0, (3, 0)),
        (0, 0, (0, 0)),
    ],
)
def test_quotas_are_filled_exactly(positives, negatives, wanted):
    rng = np.random.default_rng(positives + negatives)
    kind = rng.permutation([1] * positives + [-1] * negatives + [0] * (260 - positives - negatives))
    drawn = run_sample(jnp.asarray(rng.random(260)), kind > 0, kind < 0, size=64, max_positive=16)
    n = sum(wanted)
    assert (int(drawn.positive.sum()), int(drawn.valid.sum())) == (wanted[0], n)
    assert np.all(drawn.positive[: wanted[0]]) and np.all(drawn.valid[:n])  # in front, in this order
    chosen = kind[np.asarray(drawn.rows)[:n]]
    assert np.all(chosen[: wanted[0]] > 0) and np.all(chosen[wanted[0] :] < 0)
    assert len(set(np.asarray(drawn.rows)[:n].tolist())) == n


def test_more_slots_than_candidates():
    drawn = run_sample(jnp.arange(5.0), np.arange(5) < 2, np.arange(5) >= 3, size=12, max_positive=8)
    assert drawn.rows[:4].tolist() == [1, 0, 4, 3] and int(drawn.valid.sum()) == 4


def test_the_draw_is_uniform():
    """20 of 60 positives and 44 of 100 negatives in 3,000 draws: each as often as the others."""
    positive, negative = np.arange(170) < 60, (np.arange(170) >= 60) & (np.arange(170) < 160)

    @jax.jit
    def count(keys):
        draw = functools.partial(sample, positive=positive, negative=negative, size=64, max_positive=20)
        drawn = jax.vmap(draw)(jax.vmap(lambda key: jax.random.uniform(key, (170,)))(keys))
        hits = jax.vmap(lambda d: jnp.zeros(170).at[d.rows].add(d.valid))(drawn)
        return hits.mean(0)

    share = np.asarray(count(jax.random.split(jax.random.key(0), 3000)))
    assert not np.any(share[160:])
    for part, wanted in ((share[:60], 1 / 3), (share[60:160], 0.44)):
        deviation = np.sqrt(wanted * (1 - wanted) / 3000)
        assert np.abs(part - wanted).max() < 4.5 * deviation
        assert 0.6 * deviation < part.std() < 1.5 * deviation  # independent draws, not a fixed pattern


def test_anchors_are_assigned_as_by_mmdet(goldens):
    height, width = (int(side) for side in goldens["pad_shape"][:2])
    anchors = anchor_grid(height, width, (4, 8, 16, 32, 64), 8.0, (0.5, 1.0, 2.0)).boxes
    objects, exists = goldens["gt_bboxes"], np.ones(4, bool)
    found = run_assign(anchors, np.ones(len(anchors), bool), objects, exists, **RPN)
    np.testing.assert_array_equal(as_mmdet(found), goldens["rpn_assign_gt_inds"])


def test_proposals_are_assigned_as_by_mmdet(goldens):
    objects, exists, proposals = goldens["gt_bboxes"], np.ones(4, bool), goldens["proposals"]
    valid = np.ones(len(proposals), bool)
    found = run_assign(proposals, valid, objects, exists, **ROI)
    np.testing.assert_array_equal(as_mmdet(found), goldens["roi_assign_gt_inds"])
