"""Anchors of feature levels: NumPy constants of the padded image size."""

import math

import numpy as np


def level_shapes(height, width, strides):
    """Heights and widths of the pyramid's levels for a padded image of `height` × `width` pixels."""
    return tuple((math.ceil(height / s), math.ceil(width / s)) for s in strides)


def base_anchors(stride, scale, ratios, centre=0.0, rounded=False, sizes=(1.0,)):
    """Anchors (S·R, 4) of the cell at the origin: area (stride · scale · size)², height / width = ratio.

    Ordered (size, ratio).

    `centre`: where in the cell they sit, 0 its corner (mmdet 2) and 0.5 its middle; `rounded` to whole pixels
    (both together: mmdet before 2, and so the authors).
    """
    roots = np.tile(np.sqrt(np.asarray(ratios, np.float64)), len(sizes))
    half = 0.5 * stride * scale * np.repeat(np.asarray(sizes, np.float64), len(ratios))
    half_w, half_h = half / roots, half * roots
    anchors = centre * stride + np.stack([-half_w, -half_h, half_w, half_h], axis=-1)
    return np.round(anchors) if rounded else anchors


def anchor_grid(height, width, strides, scale, ratios, centre=0.0, rounded=False, sizes=(1.0,)):
    """All anchors (A, 4) float32 of an image, ordered (level, y, x, size, ratio), and levels (A,) int32."""
    anchors, levels = [], []
    for level, ((rows, cols), stride) in enumerate(zip(level_shapes(height, width, strides), strides)):
        y, x = np.meshgrid(np.arange(rows) * stride, np.arange(cols) * stride, indexing="ij")
        shift = np.stack([x, y, x, y], axis=-1)[:, :, None]
        grid = (shift + base_anchors(stride, scale, ratios, centre, rounded, sizes)).reshape(-1, 4)
        anchors.append(grid.astype(np.float32))
        levels.append(np.full(len(grid), level, np.int32))
    return np.concatenate(anchors), np.concatenate(levels)


def cell_origins(height, width, strides, per_cell):
    """Top left corners (A, 2) float32 `y, x` in pixels of the cells of the anchors, `per_cell` to each."""
    origins = []
    for (rows, cols), stride in zip(level_shapes(height, width, strides), strides):
        y, x = np.meshgrid(np.arange(rows) * stride, np.arange(cols) * stride, indexing="ij")
        origins.append(np.repeat(np.stack([y, x], axis=-1).reshape(-1, 2), per_cell, axis=0))
    return np.concatenate(origins).astype(np.float32)
