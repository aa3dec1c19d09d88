"""NMS against the plain greedy loop and recorded results of mmcv."""

import jax
import numpy as np
import pytest

from masktrack_jax.ops.nms import nms
from tests.helpers.boxes import iou_of, random_boxes

run = jax.jit(nms, static_argnums=2, static_argnames="rounds")


def greedy(boxes, valid, threshold, groups):
    """NMS as in the textbook: box by box, the best first."""
    keep = np.zeros(len(boxes), bool)
    for i in range(len(boxes)):
        rivals = [j for j in range(i) if keep[j] and groups[j] == groups[i]]
        hit = any(
            iou_of(boxes[j].astype(np.float64), boxes[i].astype(np.float64)) > threshold for j in rivals
        )
        keep[i] = valid[i] and not hit
    return keep


def clustered(rng, n):
    """Boxes in clusters, so that chains of suppression are long."""
    centres = rng.uniform(20, 100, (6, 2))[rng.integers(6, size=n)] + rng.normal(0, 6, (n, 2))
    half = rng.uniform(8, 16, (n, 2))
    return np.concatenate([centres - half, centres + half], 1).astype(np.float32)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_nms_is_greedy(threshold):
    changed = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        boxes = clustered(rng, 90)
        boxes[5:8] = boxes[4]  # the same box several times
        boxes[20:23] = 0
        boxes[30] = [10, 10, 10, 40]
        valid = rng.random(90) < 0.85
        groups = rng.integers(3, size=90)
        kept = greedy(boxes, valid, threshold, groups)
        np.testing.assert_array_equal(run(boxes, valid, threshold, groups), kept)
        np.testing.assert_array_equal(run(boxes, valid, threshold, groups, rounds=3), kept)
        one_group = greedy(boxes, valid, threshold, 0 * groups)
        np.testing.assert_array_equal(run(boxes, valid, threshold), one_group)
        changed += np.sum(valid) - np.sum(kept)
    assert changed > 20  # the threshold had work to do


def test_only_overlap_above_the_threshold_suppresses():
    # The IoU of the first two is exactly 1/2, that of the last two is larger.
    boxes = np.array([[0, 0, 4, 4], [0, 0, 4, 2], [20, 0, 24, 4], [20, 0, 24, 3]], np.float32)
    assert run(boxes, np.ones(4, bool), 0.5).tolist() == [True, True, True, False]


def test_a_suppressed_box_suppresses_nothing():
    boxes = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], np.float32)
    assert run(boxes, np.ones(3, bool), 0.3).tolist() == [True, False, True]
    # An invalid box suppresses nothing either.
    assert run(boxes, np.array([False, True, True]), 0.3).tolist() == [False, True, False]


def test_nothing_valid_and_long_chains():
    boxes = random_boxes(np.random.default_rng(0), 16)
    assert not np.any(run(boxes, np.zeros(16, bool), 0.5))
    chain = np.array([[4 * i, 0, 4 * i + 10, 10] for i in range(60)], np.float32)  # each hits the next
    assert run(chain, np.ones(60, bool), 0.3).tolist() == [i % 2 == 0 for i in range(60)]
