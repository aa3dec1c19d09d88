"""Exact RoIAlign over a feature pyramid, in bounded memory, forward and backward.

Every output bin is a weighted sum over a small rectangle of feature cells. Each weight is the product of a
row weight and a column weight. A chunk of boxes is pooled in a loop over the rows and columns of its largest
rectangle, STEP by STEP cells at a time. For each of these cells, an array of all bins is gathered, weighted
and added to the output, so no larger array is stored. The backward pass is the same loop with scatter-adds,
one for all cells of a step.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

STEP = 2  # cells along an axis that are summed in one pass over the output


class RoIAlignOptions(NamedTuple):
    """A config's `model.roi_align`, and the size of the largest box."""

    finest_scale: float  # boxes with a side below twice this value use the finest level
    sampling: int  # samples per bin and axis; 0 is the adaptive grid of mmcv's RoIAlign
    # Pixels and cells share one grid. Otherwise samples are half a cell too far to the lower right, as in the
    # first implementations and in the authors' code (with 2 samples).
    aligned: bool
    min_size: float  # in cells; smaller boxes are enlarged to it (torchvision: 1)
    extent: float = 1.0  # size of the largest box relative to the padded image; 1 for boxes clipped to it


class Axis(NamedTuple):
    """The cells along one axis that each box uses."""

    first: Int[Array, "boxes bins"]
    weights: Float[Array, "boxes bins cells"]  # weights of the cells from `first` on
    used: Int[Array, " boxes"]  # number of these cells that are used
    limit: Int[Array, " boxes"]  # number of cells of the level


class Plan(NamedTuple):
    """The positions in the table of all cells that each box uses."""

    base: Int[Array, " boxes"]  # the first cell of the box's level and image
    rows: Axis
    columns: Axis


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


def _axis_taps(
    start: Float[Array, " boxes"],
    length: Float[Array, " boxes"],
    bins: int,
    limit: Int[Array, " boxes"],
    sampling: int,
    reach: int,
) -> Axis:
    """The cells that each box uses, at most `reach` + 2 from the first cell of a bin on."""
    max_samples = reach if sampling == 0 else sampling
    position, weight = bin_samples(start, length, bins, limit, sampling, max_samples)
    used = weight > 0
    first = jnp.floor(jnp.min(jnp.where(used, position, np.inf), axis=-1))
    first = jnp.where(jnp.isfinite(first), first, 0)
    last = jnp.floor(jnp.max(jnp.where(used, position, -1), axis=-1)) + 1
    cell = first[..., None] + jnp.arange(-(-(reach + 2) // STEP) * STEP)
    tent = jnp.maximum(1 - jnp.abs(position[..., None, :] - cell[..., None]), 0)
    taps = jnp.sum(tent * weight[..., None, :], axis=-1)
    count = jnp.max(jnp.where(jnp.any(used, -1), last - first + 1, 0), axis=-1)
    return Axis(first.astype(jnp.int32), taps, count.astype(jnp.int32), limit)


def roi_levels(
    boxes: Float[Array | np.ndarray, "*boxes 4"], num_levels: int, finest_scale: float
) -> Int[Array, "*boxes"]:
    """Pyramid level of each box: floor(log2(√area / finest_scale)) (FPN, equation 1)."""
    area = jnp.maximum((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]), 0)
    level = jnp.floor(jnp.log2(jnp.sqrt(area) / finest_scale + 1e-6))
    return jnp.clip(level, 0, num_levels - 1).astype(jnp.int32)


def _plan(
    levels: Sequence[Float[Array | np.ndarray, "batch _rows _columns channels"]],
    strides: Sequence[int],
    boxes: Float[Array | np.ndarray, "groups boxes 4"],
    images: Int[Array | np.ndarray, "#groups #boxes"],
    valid: Bool[Array | np.ndarray, "groups boxes"],
    bins: int,
    options: RoIAlignOptions,
) -> Plan:
    """The `Plan` of the boxes; the table of all cells is ordered (level, image, row, column)."""
    shapes = tuple(level.shape[1:3] for level in levels)
    sizes = np.array([h * w for h, w in shapes])
    starts = levels[0].shape[0] * (np.cumsum(sizes) - sizes)
    level = roi_levels(boxes, len(shapes), options.finest_scale)
    height, width = (jnp.asarray(np.array(shapes, np.int32)[:, axis])[level] for axis in (0, 1))
    scale = jnp.asarray(1 / np.array(strides, np.float32))[level]
    base = jnp.asarray(starts, jnp.int32)[level]
    base += images * jnp.asarray(sizes, jnp.int32)[level]
    scaled = jnp.where(valid[..., None], boxes, 0) * scale[..., None]
    scaled -= 0.5 if options.aligned else 0.0  # cell i of a level has its centre at i, not at i + 0.5

    def taps(axis: int, limit: Int[Array, "groups boxes"]) -> Axis:
        start, length = scaled[..., axis], scaled[..., axis + 2] - scaled[..., axis]
        length = jnp.maximum(length, options.min_size)
        reach = math.ceil(options.extent * max(shape[1 - axis] for shape in shapes) / bins) + 1
        flat = start.reshape(-1), length.reshape(-1), bins, limit.reshape(-1)
        return _axis_taps(*flat, options.sampling, reach)

    def inside(axis: Axis, limit: Int[Array, "groups boxes"]) -> Axis:
        """Limit the first cells of the axis to less than `limit`."""
        return axis._replace(first=jnp.minimum(axis.first, limit.reshape(-1, 1) - 1), limit=limit.reshape(-1))

    columns, rows = taps(0, width), taps(1, height)
    # With a fixed number of samples even an empty box has weights.
    rows = rows._replace(weights=rows.weights * valid.reshape(-1, 1, 1))
    rows, columns = inside(rows, height), inside(columns, width)
    return Plan(base.reshape(-1), rows, columns)


def _chunks(tree: PyTree, count: int, chunk: int) -> PyTree:
    """Pad a tree of arrays of `count` rows with zeros, and split it into chunks of at most `chunk` rows."""
    n = min(chunk, count)

    def cut(array: Array) -> Array:
        missing = -array.shape[0] % n
        padded = jnp.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))
        return padded.reshape(-1, n, *array.shape[1:])

    return jax.tree.map(cut, tree)


def _walk(plan: Plan, visit: Callable[[Array, Array, Array], Array], carry: Array) -> Array:
    """Fold `visit(index, weight, carry)` over the cells that a chunk of boxes needs.

    `visit` receives the indices and weights (boxes, bins, bins, STEP²) of STEP² cells of every bin; cells
    outside a box have weight 0.
    """
    base, (y, wy, ny, height), (x, wx, nx, width) = plan
    n, bins = y.shape
    steps = jnp.arange(STEP)

    def along(first: Array, weights: Array, limit: Array, k: Array) -> tuple[Array, Array]:
        """Cells and weights (boxes, bins, STEP) of step k along one axis."""
        cells = jnp.minimum(first[..., None] + k * STEP + steps, limit[:, None, None] - 1)
        return cells, lax.dynamic_slice_in_dim(weights, k * STEP, STEP, axis=2)

    def row(k: Array, carry: Array) -> Array:
        rows, row_weights = along(y, wy, height, k)
        starts = base[:, None, None] + rows * width[:, None, None]

        def column(j: Array, carry: Array) -> Array:
            columns, column_weights = along(x, wx, width, j)
            index = starts[:, :, None, :, None] + columns[:, None, :, None]
            weight = row_weights[:, :, None, :, None] * column_weights[:, None, :, None]
            shape = (n, bins, bins, STEP * STEP)
            return visit(index.reshape(shape), weight.reshape(shape), carry)

        return lax.fori_loop(0, -(-jnp.max(nx) // STEP), column, carry)

    return lax.fori_loop(0, -(-jnp.max(ny) // STEP), row, carry)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _pool(
    table: Float[Array, "cells channels"], plan: Plan, bins: int, chunk: int
) -> Float[Array, "boxes {bins} {bins} channels"]:
    """Pooled features from the table of all cells of all levels of all images."""
    m, channels = plan.base.shape[0], table.shape[1]
    wide = jnp.promote_types(table.dtype, jnp.float32)  # never sum in bfloat16

    def pool_chunk(part: Plan) -> Array:
        def visit(index: Array, weight: Array, out: Array) -> Array:
            for k in range(index.shape[-1]):  # a single gather would store all cells before they are summed
                cells = table.at[index[..., k]].get(mode="promise_in_bounds")
                out += cells.astype(wide) * weight[..., k, None].astype(wide)
            return out

        return _walk(part, visit, jnp.zeros((part.base.shape[0], bins, bins, channels), wide))

    out = lax.map(pool_chunk, _chunks(plan, m, chunk))
    return out.reshape(-1, bins, bins, channels)[:m].astype(table.dtype)


class _Residuals(NamedTuple):
    plan: Plan
    cells: int
    like: Float[Array, "0"]  # has the dtype of the table


def _pool_forward(
    table: Float[Array, "cells channels"], plan: Plan, bins: int, chunk: int
) -> tuple[Float[Array, "boxes bins bins channels"], _Residuals]:
    residuals = _Residuals(plan, table.shape[0], jnp.zeros((0,), table.dtype))
    return _pool(table, plan, bins, chunk), residuals


def _pool_backward(
    bins: int, chunk: int, residuals: _Residuals, gradient: Float[Array, "boxes bins bins channels"]
) -> tuple[Float[Array, "cells channels"], None]:
    plan, cells, like = residuals
    m, channels = gradient.shape[0], gradient.shape[-1]
    wide = jnp.promote_types(like.dtype, jnp.float32)

    def add_chunk(total: Array, part: tuple[Plan, Array]) -> tuple[Array, None]:
        plan, g = part

        def visit(index: Array, weight: Array, total: Array) -> Array:
            parts = g[..., None, :].astype(wide) * weight[..., None].astype(wide)
            return total.at[index].add(parts, mode="promise_in_bounds")

        return _walk(plan, visit, total), None

    parts = _chunks((plan, gradient), m, chunk)
    total, _ = lax.scan(add_chunk, jnp.zeros((cells, channels), wide), parts)
    return total.astype(like.dtype), None


_pool.defvjp(_pool_forward, _pool_backward)


def roi_align(
    levels: Sequence[Float[Array | np.ndarray, "batch _rows _columns channels"]],
    strides: Sequence[int],
    boxes: Float[Array | np.ndarray, "groups boxes 4"],
    valid: Bool[Array | np.ndarray, "groups boxes"],
    options: RoIAlignOptions,
    *,
    bins: int,
    chunk: int,
    images: Int[Array | np.ndarray, "#groups #boxes"] | None = None,
) -> Float[Array, "groups boxes {bins} {bins} channels"]:
    """RoI features of boxes, each from the level that fits its size (Mask R-CNN, section 3).

    All `levels` belong to the same padded image size; their cells have `strides` pixels. Invalid boxes give
    zeros. Gradients flow only to `levels`, since boxes are constants, as in the paper. `images` are the index
    of each box's image; by default group i uses image i. Boxes are pooled `chunk` at a time. The chunk size
    changes only the time: the loop over a chunk covers its largest box.
    """
    batch, channels = levels[0].shape[0], levels[0].shape[-1]
    boxes = lax.stop_gradient(boxes)
    if images is None:
        images = jnp.arange(batch, dtype=jnp.int32)[:, None]
    plan = _plan(levels, strides, boxes, images, valid, bins, options)
    table = jnp.concatenate([level.reshape(-1, channels) for level in levels])
    return _pool(table, plan, bins, chunk).reshape(*boxes.shape[:2], bins, bins, channels)
