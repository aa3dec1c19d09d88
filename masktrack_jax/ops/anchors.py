"""Anchors of feature levels, NumPy constants that depend only on the padded image size."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

PAD_MULTIPLE = 32  # the coarsest stride of the backbone


class Anchors(NamedTuple):
    """Anchors of a padded image size, ordered (level, y, x, size, ratio)."""

    boxes: Float[np.ndarray, "anchors 4"]
    levels: Int[np.ndarray, " anchors"]
    origins: Float[np.ndarray, "anchors 2"]  # upper left corners `y, x` of their cells, pixels

    def valid(self, image_size: Int[Array | np.ndarray, "2"]) -> Bool[Array, " anchors"]:
        """Whether the cell is inside the image padded to a multiple of 32; the bucket may be larger."""
        height, width = -(-image_size // PAD_MULTIPLE) * PAD_MULTIPLE
        return jnp.asarray((self.origins[:, 0] < height) & (self.origins[:, 1] < width))

    def inside(self, image_size: Int[Array | np.ndarray, "2"]) -> Bool[Array, " anchors"]:
        """Whether the whole anchor is inside the image."""
        left, top, right, bottom = self.boxes.T
        height, width = image_size
        return jnp.asarray((left >= 0) & (top >= 0) & (right <= width) & (bottom <= height))


def level_shapes(height: int, width: int, strides: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Heights and widths of the pyramid's levels for a padded image of `height` × `width` pixels."""
    return tuple((math.ceil(height / s), math.ceil(width / s)) for s in strides)


def base_anchors(
    stride: int,
    scale: float,
    ratios: Sequence[float],
    centre: float = 0.0,
    rounded: bool = False,
    sizes: Sequence[float] = (1.0,),
) -> Float[np.ndarray, "anchors 4"]:
    """Anchors of the cell at the origin: area (stride · scale · size)², height / width = ratio.

    Ordered (size, ratio). `centre` is their position in the cell: 0 its corner (mmdet 2), 0.5 its centre.
    `rounded` rounds them to whole pixels. mmdet before version 2, and therefore the authors' code, uses 0.5
    and rounds.
    """
    roots = np.tile(np.sqrt(np.asarray(ratios, np.float64)), len(sizes))
    half = 0.5 * stride * scale * np.repeat(np.asarray(sizes, np.float64), len(ratios))
    half_w, half_h = half / roots, half * roots
    anchors = centre * stride + np.stack([-half_w, -half_h, half_w, half_h], axis=-1)
    return np.round(anchors) if rounded else anchors


def anchor_grid(
    height: int,
    width: int,
    strides: Sequence[int],
    scale: float,
    ratios: Sequence[float],
    centre: float = 0.0,
    rounded: bool = False,
    sizes: Sequence[float] = (1.0,),
) -> Anchors:
    """All anchors of an image padded to `height` × `width`; for the options see `base_anchors`."""
    boxes, levels, origins = [], [], []
    for level, ((rows, columns), stride) in enumerate(zip(level_shapes(height, width, strides), strides)):
        y, x = np.meshgrid(np.arange(rows) * stride, np.arange(columns) * stride, indexing="ij")
        shift = np.stack([x, y, x, y], axis=-1)[:, :, None]
        cell = base_anchors(stride, scale, ratios, centre, rounded, sizes)
        grid = (shift + cell).reshape(-1, 4)
        boxes.append(grid.astype(np.float32))
        levels.append(np.full(len(grid), level, np.int32))
        origins.append(np.repeat(np.stack([y, x], axis=-1).reshape(-1, 2), len(cell), axis=0))
    return Anchors(np.concatenate(boxes), np.concatenate(levels), np.concatenate(origins).astype(np.float32))
