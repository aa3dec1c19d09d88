"""Where RoIAlign samples a feature pyramid: the definition that all its forms share.

Every output bin is a weighted sum over a small rectangle of feature cells. Each weight is the product of a
row weight and a column weight.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

Levels = tuple[Float[Array | np.ndarray, "batch _rows _columns channels"], ...]


class RoIAlignOptions(NamedTuple):
    """A config's `model.roi_align`, and the size of the largest box."""

    finest_scale: float  # boxes with a side below twice this value use the finest level
    sampling: int  # samples per bin and axis; 0 is the adaptive grid of mmcv's RoIAlign
    # Pixels and cells share one grid. Otherwise samples are half a cell too far to the lower right, as in the
    # first implementations and in the authors' code (with 2 samples).
    aligned: bool
    min_size: float  # in cells; smaller boxes are enlarged to it (torchvision: 1)
    extent: float = 1.0  # size of the largest box relative to the padded image; 1 for boxes clipped to it


class Interval(NamedTuple):
    """The extent of boxes along one axis, in cells of their levels."""

    start: Float[Array, "*boxes"]
    length: Float[Array, "*boxes"]
    limit: Int[Array, "*boxes"]  # number of cells of the level


class Placed(NamedTuple):
    """Boxes on the levels of a pyramid."""

    level: Int[Array, "groups boxes"]
    image: Int[Array, "groups boxes"] | None  # None: group i uses image i
    valid: Bool[Array, "groups boxes"]
    rows: Interval
    columns: Interval


def roi_levels(
    boxes: Float[Array | np.ndarray, "*boxes 4"], num_levels: int, finest_scale: float
) -> Int[Array, "*boxes"]:
    """Pyramid level of each box: floor(log2(√area / finest_scale)) (FPN, equation 1)."""
    area = jnp.maximum((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]), 0)
    level = jnp.floor(jnp.log2(jnp.sqrt(area) / finest_scale + 1e-6))
    return jnp.clip(level, 0, num_levels - 1).astype(jnp.int32)


def place(
    levels: Levels,
    strides: Sequence[int],
    boxes: Float[Array | np.ndarray, "groups boxes 4"],
    valid: Bool[Array | np.ndarray, "groups boxes"],
    options: RoIAlignOptions,
    images: Int[Array | np.ndarray, "#groups #boxes"] | None,
) -> Placed:
    """Find the level of each box and its extent there. Invalid boxes are empty."""
    shapes = np.array([level.shape[1:3] for level in levels], np.int32)
    level = roi_levels(boxes, len(shapes), options.finest_scale)
    scale = jnp.asarray(1 / np.array(strides, np.float32))[level]
    scaled = jnp.where(valid[..., None], boxes, 0) * scale[..., None]
    scaled -= 0.5 if options.aligned else 0.0  # cell i of a level has its centre at i, not at i + 0.5

    def interval(axis: int) -> Interval:
        start, length = scaled[..., axis], scaled[..., axis + 2] - scaled[..., axis]
        limit = jnp.asarray(shapes[:, 1 - axis])[level]
        return Interval(start, jnp.maximum(length, options.min_size), limit)

    if images is not None:
        images = jnp.broadcast_to(images, level.shape)
    return Placed(level, images, jnp.asarray(valid), interval(1), interval(0))


def largest_bin(levels: Levels, axis: int, bins: int, options: RoIAlignOptions) -> int:
    """The most samples of an adaptive bin along an axis of the levels, 1 (rows) or 2 (columns)."""
    return math.ceil(options.extent * max(level.shape[axis] for level in levels) / bins) + 1


def bin_samples(
    start: Float[Array, "*boxes"],
    length: Float[Array, "*boxes"],
    bins: int,
    limit: Int[Array, "*boxes"],
    sampling: int,
    max_samples: int,
) -> tuple[Float[Array, "*boxes {bins} {max_samples}"], Float[Array, "*boxes {bins} {max_samples}"]]:
    """Positions and weights of the samples of the `bins` parts of an interval.

    `start`, `length` and `limit`, the number of cells, are in cells. Each bin has `sampling` samples; with 0
    the number is the length of a bin rounded up (mmcv's adaptive grid; at most `max_samples`). A sample more
    than one cell outside has weight 0. Other samples outside are moved to the border cell, as in the
    published kernels.
    """
    size = length / bins
    count = jnp.ceil(size) if sampling == 0 else jnp.full_like(size, sampling)
    s = jnp.arange(max_samples, dtype=start.dtype)
    step = (size / jnp.maximum(count, 1))[..., None, None]
    first = start[..., None] + jnp.arange(bins, dtype=start.dtype) * size[..., None]
    position = first[..., None] + (s + 0.5) * step
    cells = limit[..., None, None].astype(start.dtype)
    inside = (s < count[..., None, None]) & (position >= -1) & (position <= cells)
    weight = inside / jnp.maximum(count, 1)[..., None, None]
    return jnp.clip(position, 0, cells - 1), weight


def cell_weights(
    interval: Interval, bins: int, sampling: int, largest: int, cells: Int[Array, "*#boxes cells"]
) -> Float[Array, "*boxes {bins} cells"]:
    """The weight of each of the `cells` in every bin; `largest`: see `largest_bin`."""
    start, length, limit = interval
    position, weight = bin_samples(start, length, bins, limit, sampling, sampling or largest)
    tent = jnp.maximum(1 - jnp.abs(position[..., None] - cells[..., None, None, :]), 0)
    return jnp.sum(tent * weight[..., None], axis=-2)


def split_bfloat16(
    x: Float[Array, "*shape"],
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Two bfloat16 arrays whose sum is the float32 array `x`, up to 2⁻¹⁶ of it.

    The bits are cut by a mask: a compiler may remove a conversion to bfloat16 and back.
    """
    bits = lax.bitcast_convert_type(x, jnp.uint32) & jnp.uint32(0xFFFF0000)
    high = lax.bitcast_convert_type(bits, jnp.float32)
    return high.astype(jnp.bfloat16), (x - high).astype(jnp.bfloat16)
