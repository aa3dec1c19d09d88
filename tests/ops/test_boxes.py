"""Boxes and deltas against plain NumPy and numbers that mmdet recorded."""

import numpy as np
import pytest

from masktrack_jax.models.box_head import STDS
from masktrack_jax.ops import boxes as box_ops
from tests.helpers.boxes import iou_of, random_boxes


def test_iou_is_that_of_the_definition():
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 30).astype(np.float64), random_boxes(rng, 20).astype(np.float64)
    b[:3] = a[:3]  # identical
    b[3] = [10, 10, 10, 50]  # empty
    b[4] = a[4] + [a[4, 2] - a[4, 0], 0, a[4, 2] - a[4, 0], 0]  # touches
    wanted = [[iou_of(x, y) for y in b] for x in a]
    np.testing.assert_allclose(box_ops.pairwise_iou(a.astype("f4"), b.astype("f4")), wanted, atol=2e-6)
    empty = np.zeros((2, 4), np.float32)
    assert not np.any(box_ops.pairwise_iou(empty, empty))


@pytest.mark.parametrize("stds", [(1.0, 1.0, 1.0, 1.0), STDS])
def test_decode_undoes_encode(stds):
    rng = np.random.default_rng(1)
    anchors, boxes = random_boxes(rng, 100), random_boxes(rng, 100)
    # Decoding limits growth to 1000 / 16.
    ratio = (boxes[:, 2:] - boxes[:, :2]) / (anchors[:, 2:] - anchors[:, :2])
    anchors, boxes = (x[np.all((ratio < 60) & (ratio > 1 / 60), axis=1)] for x in (anchors, boxes))
    assert len(boxes) > 80
    back = box_ops.decode(anchors, box_ops.encode(anchors, boxes, stds), stds)
    np.testing.assert_allclose(back, boxes, atol=2e-4)


def test_decode_limits_growth_on_both_sides():
    anchor = np.array([[0, 0, 16, 16]], np.float32)
    grown = box_ops.decode(anchor, np.array([[0, 0, 50.0, -50.0]], np.float32), (1.0, 1.0, 1.0, 1.0))
    np.testing.assert_allclose(grown, [[8 - 500, 8 - 0.128, 8 + 500, 8 + 0.128]], rtol=1e-5)


def test_encode_of_padding_is_finite():
    zeros, box = np.zeros((1, 4), np.float32), np.array([[3, 4, 50, 60]], np.float32)
    for anchors, boxes in ((zeros, box), (box, zeros), (zeros, zeros)):
        assert np.all(np.isfinite(box_ops.encode(anchors, boxes, STDS)))


def test_clip_takes_height_then_width():
    boxes = np.array([[-5, -6, 300, 400], [10, 20, 30, 40]], np.float32)
    np.testing.assert_array_equal(
        box_ops.clip(boxes, np.array([100, 200])), [[0, 0, 200, 100], [10, 20, 30, 40]]
    )


@pytest.mark.parametrize("name, stds", [("rpn", (1.0, 1.0, 1.0, 1.0)), ("rcnn", STDS)])
def test_coder_gives_mmdet_numbers(goldens, name, stds):
    boxes, truth, deltas = (goldens[f"coder_{part}"] for part in ("boxes", "gt", "deltas"))
    encoded = box_ops.encode(boxes, truth, stds)
    np.testing.assert_allclose(encoded, goldens[f"coder_encode_{name}"], rtol=1e-5, atol=2e-6)
    decoded = box_ops.clip(box_ops.decode(boxes, deltas, stds), np.array([360, 480]))  # recorded clipped
    np.testing.assert_allclose(decoded, goldens[f"coder_decode_{name}"], rtol=1e-5, atol=1e-4)
