"""Training targets against those that mmdet recorded, and the rules of the published configs."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from masktrack_jax.config.base import base_config
from masktrack_jax.ops.anchors import anchor_grid
from masktrack_jax.training import targets
from tests.helpers.configs import load_config

RPN = dict(positive_iou=0.7, negative_iou=0.3, min_positive_iou=0.3)
ROI = dict(positive_iou=0.5, negative_iou=0.5, min_positive_iou=0.5)
NAMES = ("positive_iou", "negative_iou", "min_positive_iou")


def test_keys_of_samples_are_their_own():
    keys = jax.random.split(jax.random.key(1), 3)
    every = targets.priorities(keys, 50)
    np.testing.assert_array_equal(targets.priorities(keys[1:2], 50)[0], every[1])
    assert not np.any(every[0] == every[1])


def first_candidates(n):
    """The priority by which the recorded runs took the first N candidates instead of a random choice."""
    return -jnp.arange(n, dtype=jnp.float32)


def test_anchor_targets_are_those_of_mmdet(goldens):
    options = base_config().train.rpn
    height, width = (int(side) for side in goldens["pad_shape"][:2])
    anchors = anchor_grid(height, width, (4, 8, 16, 32, 64), 8.0, (0.5, 1.0, 2.0)).boxes
    objects, exists = goldens["gt_bboxes"], np.ones(4, bool)
    run = jax.jit(targets.anchor_targets, static_argnums=5)
    drawn = run(
        first_candidates(len(anchors)),
        anchors,
        np.ones(len(anchors), bool),
        objects,
        exists,
        hashable(options),
    )
    n = len(goldens["rpn_pos_inds"])
    assert np.all(drawn.valid) and int(drawn.positive.sum()) == n
    np.testing.assert_array_equal(drawn.rows[:n], goldens["rpn_pos_inds"])
    np.testing.assert_array_equal(drawn.rows[n:], goldens["rpn_neg_inds"])
    np.testing.assert_allclose(drawn.deltas[:n], goldens["rpn_pos_targets"], atol=2e-6)


def test_roi_targets_are_those_of_mmdet(goldens):
    objects, exists, proposals = goldens["gt_bboxes"], np.ones(4, bool), goldens["proposals"]
    valid = np.ones(len(proposals), bool)
    run = jax.jit(targets.roi_targets, static_argnums=(3, 4))
    options = hashable(base_config().train.roi)
    labelled = targets.Objects(objects, goldens["gt_labels"], exists)
    drawn = run(first_candidates(204), targets.Proposals(proposals, valid), labelled, 40, options)
    n = len(goldens["roi_pos_inds"])
    assert np.all(drawn.valid) and int(drawn.positive.sum()) == n == 32
    np.testing.assert_allclose(drawn.boxes[:n], goldens["roi_pos_bboxes"], atol=1e-5)
    np.testing.assert_allclose(drawn.boxes[n:], goldens["roi_neg_bboxes"], atol=1e-5)
    np.testing.assert_array_equal(drawn.target[:n], goldens["roi_pos_assigned_gt_inds"])
    np.testing.assert_array_equal(drawn.labels, goldens["roi_labels"])
    np.testing.assert_allclose(drawn.deltas[:n], goldens["roi_bbox_targets"][:n], atol=2e-5)


def test_objects_join_the_proposals_after_assignment():
    """mmdet adds the objects to the assigned proposals: they are their own, and take no claim away."""
    objects = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 6], [0, 0, 0, 0]], np.float32)
    exists = np.arange(4) < 3
    proposals = np.array([[0, 0, 10, 9], [40, 40, 50, 50]], np.float32)
    options = hashable(base_config().train.roi)
    labels = np.array([3, 4, 5, 6])
    run = jax.jit(targets.roi_targets, static_argnums=(3, 4))
    labelled = targets.Objects(objects, labels, exists)
    drawn = run(first_candidates(6), targets.Proposals(proposals, np.ones(2, bool)), labelled, 40, options)
    assert int(drawn.positive.sum()) == 4 and int(drawn.valid.sum()) == 5
    # Twins stay two objects; the proposal's best match is object 0, but object 2 has no better one.
    assert drawn.target[:4].tolist() == [0, 1, 2, 2]
    assert drawn.labels[:5].tolist() == [3, 4, 5, 5, 40]


def hashable(section):
    return FrozenConfigDict(section)


def test_tiny_and_base_share_their_rules():
    """The rules of assignment tested in tests/ops/test_target_assignment.py are what training uses."""
    for config in (base_config(), load_config("tiny")):
        assert {name: config.train.rpn[name] for name in NAMES} == RPN
        assert {name: config.train.roi[name] for name in NAMES} == ROI
