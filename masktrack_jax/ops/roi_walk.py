"""RoIAlign by a walk over the cells of a few boxes at a time, in bounded memory: the CPU's form.

A chunk of boxes is pooled in a loop over the rows and columns of its largest rectangle, STEP by STEP cells at
a time. For each of these cells, an array of all bins is gathered, weighted and added to the output, so no
larger array is stored. The backward pass is the same loop with scatter-adds, one for all cells of a step.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from masktrack_jax.ops.roi_samples import (
    Interval,
    Levels,
    Placed,
    RoIAlignOptions,
    bin_samples,
    largest_bin,
)

STEP = 2  # cells along an axis that are summed in one pass over the output
CHUNK = 2  # boxes of one walk; their features fit in a CPU's cache


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


def pool(
    levels: Levels, boxes: Placed, bins: int, options: RoIAlignOptions, chunk: int = CHUNK
) -> Float[Array, "groups boxes {bins} {bins} channels"]:
    """RoI features of boxes, `chunk` at a time. The chunk's size changes only the time."""
    table = jnp.concatenate([level.reshape(-1, level.shape[-1]) for level in levels])
    pooled = _pool(table, _plan(levels, boxes, bins, options), bins, chunk)
    return pooled.reshape(*boxes.valid.shape, *pooled.shape[1:])


def _plan(levels: Levels, boxes: Placed, bins: int, options: RoIAlignOptions) -> Plan:
    """The `Plan` of the boxes; the table of all cells is ordered (level, image, row, column)."""
    sizes = np.array([level.shape[1] * level.shape[2] for level in levels])
    starts = levels[0].shape[0] * (np.cumsum(sizes) - sizes)
    base = jnp.asarray(starts, jnp.int32)[boxes.level]
    images = jnp.arange(len(boxes.valid), dtype=jnp.int32)[:, None] if boxes.image is None else boxes.image
    base += images * jnp.asarray(sizes, jnp.int32)[boxes.level]
    flat = jax.tree.map(lambda x: x.reshape(-1), boxes._replace(image=base))
    columns = _axis_taps(flat.columns, bins, options.sampling, largest_bin(levels, 2, bins, options))
    rows = _axis_taps(flat.rows, bins, options.sampling, largest_bin(levels, 1, bins, options))
    # With a fixed number of samples even an empty box has weights.
    rows = rows._replace(weights=rows.weights * flat.valid[:, None, None])
    return Plan(flat.image, rows, columns)


def _axis_taps(interval: Interval, bins: int, sampling: int, reach: int) -> Axis:
    """The cells that each box uses, at most `reach` + 2 from the first cell of a bin on."""
    start, length, limit = interval
    position, weight = bin_samples(start, length, bins, limit, sampling, sampling or reach)
    used = weight > 0
    first = jnp.floor(jnp.min(jnp.where(used, position, np.inf), axis=-1))
    first = jnp.where(jnp.isfinite(first), first, 0)
    last = jnp.floor(jnp.max(jnp.where(used, position, -1), axis=-1)) + 1
    cell = first[..., None] + jnp.arange(-(-(reach + 2) // STEP) * STEP)
    tent = jnp.maximum(1 - jnp.abs(position[..., None, :] - cell[..., None]), 0)
    taps = jnp.sum(tent * weight[..., None, :], axis=-1)
    count = jnp.max(jnp.where(jnp.any(used, -1), last - first + 1, 0), axis=-1)
    first = jnp.minimum(first.astype(jnp.int32), limit[:, None] - 1)
    return Axis(first, taps, count.astype(jnp.int32), limit)


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
