"""Anchors against published constants and numbers that mmdet recorded."""

import numpy as np
import pytest

from masktrack_jax.ops.anchors import anchor_grid, base_anchors, level_shapes

STRIDES, RATIOS = (4, 8, 16, 32, 64), (0.5, 1.0, 2.0)


def test_base_anchors_are_the_references():
    wanted = [[-22.627417, -11.3137085, 22.627417, 11.3137085], [-16, -16, 16, 16]]
    np.testing.assert_allclose(base_anchors(4, 8.0, RATIOS)[:2], wanted, rtol=1e-6)
    wide, square, tall = base_anchors(16, 8.0, RATIOS)
    for anchor, ratio in zip((wide, square, tall), RATIOS):
        w, h = anchor[2:] - anchor[:2]
        assert (w * h, h / w) == (pytest.approx(128.0**2), pytest.approx(ratio))


def test_anchors_of_several_sizes():
    """Sizes one after the other, each with its ratios: 32, 64 and 128 pixels at a stride of 32."""
    anchors = base_anchors(32, 1.0, RATIOS, sizes=(1.0, 2.0, 4.0))
    wanted = [base_anchors(size, 1.0, RATIOS) for size in (32, 64, 128)]
    np.testing.assert_allclose(anchors, np.concatenate(wanted))
    grid, levels, origins = anchor_grid(64, 96, (32,), 1.0, RATIOS, sizes=(1.0, 2.0, 4.0))
    assert len(grid) == len(origins) == 2 * 3 * 9 and not np.any(levels)
    np.testing.assert_allclose((grid[:, :2] + grid[:, 2:]) / 2, origins[:, ::-1], atol=1e-4)
    np.testing.assert_allclose(grid[4 * 9 : 5 * 9], anchors + np.tile([32, 32], 2), atol=1e-4)


def test_anchor_grid_gives_mmdet_numbers(goldens):
    height, width = (int(side) for side in goldens["pad_shape"][:2])
    anchors, levels, _ = anchor_grid(height, width, STRIDES, 8.0, RATIOS)
    np.testing.assert_array_equal(np.bincount(levels), goldens["anchors_per_level"])
    recorded = goldens["anchors_sample"]
    stride = len(anchors) // len(recorded) | 1
    np.testing.assert_allclose(anchors[::stride], recorded, atol=1e-4)


def test_anchors_and_origins_share_one_order():
    anchors, levels, origins = anchor_grid(96, 160, STRIDES, 6.0, RATIOS)
    assert len(origins) == len(anchors) == 3 * sum(h * w for h, w in level_shapes(96, 160, STRIDES))
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    np.testing.assert_allclose(centres[:, ::-1], origins, atol=1e-4)
    assert np.all(np.diff(levels) >= 0)
    assert level_shapes(96, 160, STRIDES)[-1] == (2, 3)  # P6 rounds up
