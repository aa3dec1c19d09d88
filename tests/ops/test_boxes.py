"""Boxes, deltas and anchors against plain NumPy, published constants and recorded numbers."""

import numpy as np
import pytest

from masktrack_jax.models.box_head import STDS
from masktrack_jax.ops import boxes as box_ops
from masktrack_jax.ops.anchors import anchor_grid, base_anchors, cell_origins, level_shapes

STRIDES, RATIOS = (4, 8, 16, 32, 64), (0.5, 1.0, 2.0)


def random_boxes(rng, n, height=120, width=200):
    corner = rng.uniform(0, [width - 5, height - 5], (n, 2))
    size = rng.uniform(1, [width, height], (n, 2))
    return np.concatenate([corner, np.minimum(corner + size, [width, height])], 1).astype(np.float32)


def iou_of(a, b):
    """Intersection over union of two boxes, in plain Python."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(w, 0.0) * max(h, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
    return overlap / union if union > 0 else 0.0


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
    # A growth of more than 1000 / 16 is limited, by intent.
    ratio = (boxes[:, 2:] - boxes[:, :2]) / (anchors[:, 2:] - anchors[:, :2])
    anchors, boxes = (x[np.all((ratio < 60) & (ratio > 1 / 60), axis=1)] for x in (anchors, boxes))
    assert len(boxes) > 80
    back = box_ops.decode(anchors, box_ops.encode(anchors, boxes, stds), stds)
    np.testing.assert_allclose(back, boxes, atol=2e-4)


def test_decode_limits_growth_on_both_sides():
    anchor = np.array([[0, 0, 16, 16]], np.float32)
    grown = box_ops.decode(anchor, np.array([[0, 0, 50.0, -50.0]], np.float32), (1, 1, 1, 1))
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


def test_base_anchors_are_the_references():
    wanted = [[-22.627417, -11.3137085, 22.627417, 11.3137085], [-16, -16, 16, 16]]
    np.testing.assert_allclose(base_anchors(4, 8, RATIOS)[:2], wanted, rtol=1e-6)
    wide, square, tall = base_anchors(16, 8, RATIOS)
    for anchor, ratio in zip((wide, square, tall), RATIOS):
        w, h = anchor[2:] - anchor[:2]
        assert (w * h, h / w) == (pytest.approx(128.0**2), pytest.approx(ratio))


def test_anchors_of_several_sizes():
    """Sizes one after the other, each with its ratios: 32, 64 and 128 pixels at a stride of 32."""
    anchors = base_anchors(32, 1.0, RATIOS, sizes=(1, 2, 4))
    wanted = [base_anchors(size, 1.0, RATIOS) for size in (32, 64, 128)]
    np.testing.assert_allclose(anchors, np.concatenate(wanted))
    grid, levels = anchor_grid(64, 96, (32,), 1.0, RATIOS, sizes=(1, 2, 4))
    origins = cell_origins(64, 96, (32,), 9)
    assert len(grid) == len(origins) == 2 * 3 * 9 and not np.any(levels)
    np.testing.assert_allclose((grid[:, :2] + grid[:, 2:]) / 2, origins[:, ::-1], atol=1e-4)
    np.testing.assert_allclose(grid[4 * 9 : 5 * 9], anchors + np.tile([32, 32], 2), atol=1e-4)


def test_anchor_grid_gives_mmdet_numbers(goldens):
    height, width = (int(side) for side in goldens["pad_shape"][:2])
    anchors, levels = anchor_grid(height, width, STRIDES, 8.0, RATIOS)
    np.testing.assert_array_equal(np.bincount(levels), goldens["anchors_per_level"])
    recorded = goldens["anchors_sample"]
    stride = len(anchors) // len(recorded) | 1
    np.testing.assert_allclose(anchors[::stride], recorded, atol=1e-4)


def test_anchors_and_origins_share_one_order():
    anchors, levels = anchor_grid(96, 160, STRIDES, 6.0, RATIOS)
    origins = cell_origins(96, 160, STRIDES, len(RATIOS))
    assert len(origins) == len(anchors) == 3 * sum(h * w for h, w in level_shapes(96, 160, STRIDES))
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    np.testing.assert_allclose(centres[:, ::-1], origins, atol=1e-4)
    assert np.all(np.diff(levels) >= 0)
    assert level_shapes(96, 160, STRIDES)[-1] == (2, 3)  # P6 rounds up
