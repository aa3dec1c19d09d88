"""The RPN's head against its definition, and its proposals against the same pipeline in plain NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masktrack_jax.models import rpn_head
from masktrack_jax.models.forms import PLATFORMS, use_forms
from masktrack_jax.models.rpn_head import RPNHead
from masktrack_jax.ops.anchors import anchor_grid
from tests.helpers.detections import decode_box, greedy_nms
from tests.helpers.networks import apply, conv_of, dense, randomised, relu, shapes_of

STRIDES, RATIOS = (4, 8, 16, 32, 64), (0.5, 1.0, 2.0)


def test_rpn_head_orders_as_the_anchors():
    """Outputs are ordered (level, y, x, ratio), with the four deltas of a ratio side by side."""
    rng = np.random.default_rng(2)
    features = tuple(rng.normal(size=(2, h, w, 5)).astype("f4") for h, w in ((4, 6), (2, 3)))
    module = RPNHead(7, per_cell=3)
    params = randomised(shapes_of(module, features))["params"]
    logits, deltas = apply(module, {"params": params}, features)
    assert logits.shape == (2, 3 * 30) and deltas.shape == (2, 30, 3 * 4)
    hidden = [relu(conv_of({"conv": params["conv"]}, x)) for x in features]
    for level, y, x, ratio, at in ((0, 2, 5, 1, 3 * (2 * 6 + 5) + 1), (1, 1, 0, 2, 3 * (24 + 3) + 2)):
        cell = hidden[level][:, y, x]
        wanted = dense(params["logits"], "conv", cell)[:, ratio]
        np.testing.assert_allclose(logits[:, at], wanted, atol=2e-5)
        wanted = dense(params["deltas"], "conv", cell)[:, 4 * ratio : 4 * ratio + 4]
        found = [rpn_head.deltas_at(image, jnp.array([at]))[0] for image in deltas]
        np.testing.assert_allclose(found, wanted, atol=2e-5)


@pytest.mark.parametrize("platform, size", [("cpu", (64, 96)), ("gpu", (40, 60)), ("tpu", (33, 20))])
def test_select_proposals_is_the_pipeline(platform, size):
    rng = np.random.default_rng(size[0])
    grid = anchor_grid(64, 96, STRIDES, 4.0, RATIOS)
    anchors, levels, origins = grid
    logits = rng.normal(size=len(anchors)).astype("f4")
    deltas = rng.normal(0, 0.4, (len(anchors), 4)).astype("f4")
    padded = [-(-side // 32) * 32 for side in size]
    inside = np.array([y < padded[0] and x < padded[1] for y, x in origins])
    exist = grid.valid(np.array(size))
    np.testing.assert_array_equal(exist, inside)
    assert inside.all() == (padded == [64, 96])

    options = dict(pre_nms=30, post_nms=40, nms_iou=0.7, clip_margin=0.0)
    run = jax.jit(partial(rpn_head.select_proposals, anchors=grid, **options))
    of_cells = deltas.reshape(-1, 4 * len(RATIOS))
    with use_forms(PLATFORMS[platform]):
        boxes, valid = run(logits, of_cells, anchor_valid=exist, image_size=np.array(size))
    candidates = []
    for level in range(5):
        rows = [i for i in np.flatnonzero(levels == level) if inside[i]]
        for i in sorted(rows, key=lambda i: -logits[i])[:30]:
            box = decode_box(anchors[i].astype(np.float64), deltas[i].astype(np.float64), size)
            if box[2] > box[0] and box[3] > box[1]:
                candidates.append((float(logits[i]), box, level))
    wanted = [box for _, box, _ in greedy_nms(candidates, 0.7)][:40]
    assert boxes.shape == (40, 4) and int(valid.sum()) == len(wanted) > 20
    np.testing.assert_array_equal(valid, np.arange(40) < len(wanted))
    np.testing.assert_allclose(boxes[: len(wanted)], wanted, atol=1e-4)


def test_fewer_proposals_than_asked_for_are_padded():
    anchors = anchor_grid(32, 32, STRIDES, 4.0, RATIOS)
    logits, deltas = jnp.zeros(len(anchors.boxes)), jnp.zeros((len(anchors.boxes) // 3, 12))
    exist, size = np.zeros(len(logits), bool), np.array([32, 32])
    exist[[5, 40]] = True
    options = dict(pre_nms=20, post_nms=30, nms_iou=0.7, clip_margin=0.0)
    _, valid = rpn_head.select_proposals(logits, deltas, anchors, exist, size, **options)
    assert valid.tolist() == [True] * 2 + [False] * 28
