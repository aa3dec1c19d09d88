"""RoIAlign over a feature pyramid: exact, bounded memory, forward and backward.

Every output bin is a weighted sum over a small rectangle of feature cells, and the weights are a product
of a row part and a column part. So a chunk of boxes is pooled by walking over the rows and columns of the
largest rectangle in it, STEP by STEP cells at a time, and adding a gathered, weighted (n, P, P, C) array for
each cell: nothing larger is ever stored. The backward pass is the same walk with scatter-adds, of the cells
of a step together.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Boxes a chunk. It walks as far as its largest box needs, and on a CPU it had better stay in cache; a GPU
# wants few large steps.
CHUNK, LARGE_CHUNK = 2, 256
STEP = 2  # the sum of so many by so many cells is one pass over what has been summed up


def bin_samples(start, length, bins, limit, sampling, max_samples):
    """Positions (…, P, S) and weights (…, P, S) of the samples of the `bins` parts of an interval.

    `start`, `length` (…,) in cells, `limit` (…,) the number of cells. `sampling` samples a bin, or the
    length of a bin rounded up where 0 (mmcv's adaptive grid; at most `max_samples`). A sample more than
    one cell outside weighs nothing, others are moved to the border cell, as in the published kernels.
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


def _axis_taps(start, length, bins, limit, sampling, reach):
    """First cell (N, P), weights (N, P, K) of the K cells from there on, and how many are in use (N,)."""
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
    return first.astype(jnp.int32), taps, count.astype(jnp.int32)


def roi_levels(boxes, num_levels, finest_scale):
    """Pyramid level (…,) int32 of boxes (…, 4): floor(log2(√area / finest_scale)), FPN's equation 1."""
    area = jnp.maximum((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]), 0)
    level = jnp.floor(jnp.log2(jnp.sqrt(area) / finest_scale + 1e-6))
    return jnp.clip(level, 0, num_levels - 1).astype(jnp.int32)


def _plan(
    shapes, batch, strides, boxes, images, valid, bins, finest_scale, sampling, aligned, min_size, extent
):
    """Where each of the boxes reads the table of all cells: (base, width, rows, columns)."""
    sizes = np.array([h * w for h, w in shapes])
    starts = batch * (np.cumsum(sizes) - sizes)
    level = roi_levels(boxes, len(shapes), finest_scale)
    height, width = (jnp.asarray(np.array(shapes, np.int32)[:, axis])[level] for axis in (0, 1))
    scale = jnp.asarray(1 / np.array(strides, np.float32))[level]
    base = jnp.asarray(starts, jnp.int32)[level]
    base += images * jnp.asarray(sizes, jnp.int32)[level]
    scaled = jnp.where(valid[..., None], boxes, 0) * scale[..., None]
    scaled -= 0.5 if aligned else 0.0  # cell i of a level has its centre at i, not at i + 0.5

    def taps(axis, limit):
        start, length = scaled[..., axis], scaled[..., axis + 2] - scaled[..., axis]
        length = jnp.maximum(length, min_size)
        reach = math.ceil(extent * max(shape[1 - axis] for shape in shapes) / bins) + 1
        parts = (start.reshape(-1), length.reshape(-1), bins, limit.reshape(-1), sampling, reach)
        return _axis_taps(*parts)

    x, wx, nx = taps(0, width)
    y, wy, ny = taps(1, height)
    wy *= valid.reshape(-1, 1, 1)  # a fixed number of samples reads even an empty box
    rows = (jnp.minimum(y, height.reshape(-1, 1) - 1), wy, ny, height.reshape(-1))
    columns = (jnp.minimum(x, width.reshape(-1, 1) - 1), wx, nx, width.reshape(-1))
    return base.reshape(-1), rows, columns


def _chunks(tree, m):
    """Arrays (M, …) padded with zeros and cut into (chunks, n, …)."""
    n = min(CHUNK if jax.default_backend() == "cpu" else LARGE_CHUNK, m)

    def cut(array):
        missing = -array.shape[0] % n
        padded = jnp.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))
        return padded.reshape(-1, n, *array.shape[1:])

    return jax.tree.map(cut, tree)


def _walk(plan, visit, carry):
    """Fold `visit(index (n, P, P, S²), weight (n, P, P, S²), carry)` over the cells that a chunk needs, S²
    of them a visit, S = STEP; those beyond weigh nothing.
    """
    base, (y, wy, ny, height), (x, wx, nx, width) = plan
    n, bins = y.shape
    steps = jnp.arange(STEP)

    def along(first, weights, limit, k):
        """Cells and weights (n, P, S) of step k along one axis."""
        cells = jnp.minimum(first[..., None] + k * STEP + steps, limit[:, None, None] - 1)
        return cells, lax.dynamic_slice_in_dim(weights, k * STEP, STEP, axis=2)

    def row(k, carry):
        rows, row_weights = along(y, wy, height, k)
        starts = base[:, None, None] + rows * width[:, None, None]

        def column(j, carry):
            columns, column_weights = along(x, wx, width, j)
            index = starts[:, :, None, :, None] + columns[:, None, :, None]
            weight = row_weights[:, :, None, :, None] * column_weights[:, None, :, None]
            shape = (n, bins, bins, STEP * STEP)
            return visit(index.reshape(shape), weight.reshape(shape), carry)

        return lax.fori_loop(0, -(-jnp.max(nx) // STEP), column, carry)

    return lax.fori_loop(0, -(-jnp.max(ny) // STEP), row, carry)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _pool(table, plan, bins):
    """Pooled features (M, P, P, C) from the table (cells, C) of all levels of all images."""
    m, channels = plan[0].shape[0], table.shape[1]
    wide = jnp.promote_types(table.dtype, jnp.float32)  # sums are not of bfloat16

    def chunk(part):
        def visit(index, weight, out):
            for k in range(index.shape[-1]):  # as one array the cells would be stored before they are summed
                cells = table.at[index[..., k]].get(mode="promise_in_bounds")
                out += cells.astype(wide) * weight[..., k, None].astype(wide)
            return out

        return _walk(part, visit, jnp.zeros((part[0].shape[0], bins, bins, channels), wide))

    out = lax.map(chunk, _chunks(plan, m))
    return out.reshape(-1, bins, bins, channels)[:m].astype(table.dtype)


def _pool_forward(table, plan, bins):
    return _pool(table, plan, bins), (plan, table.shape[0], jnp.zeros((0,), table.dtype))


def _pool_backward(bins, residuals, gradient):
    plan, cells, like = residuals
    m, channels = gradient.shape[0], gradient.shape[-1]
    wide = jnp.promote_types(like.dtype, jnp.float32)

    def chunk(total, part):
        plan, g = part

        def visit(index, weight, total):
            parts = g[..., None, :].astype(wide) * weight[..., None].astype(wide)
            return total.at[index].add(parts, mode="promise_in_bounds")

        return _walk(plan, visit, total), None

    parts = _chunks((plan, gradient), m)
    total, _ = lax.scan(chunk, jnp.zeros((cells, channels), wide), parts)
    return total.astype(like.dtype), None


_pool.defvjp(_pool_forward, _pool_backward)


def roi_align(
    features,
    strides,
    boxes,
    valid,
    *,
    bins,
    images=None,
    finest_scale=56.0,
    sampling=0,
    aligned=True,
    min_size=0.0,
    extent=1.0,
):
    """Pooled features (B, N, P, P, C) of `boxes` (B, N, 4), each from the level that fits its size.

    `features`: levels (B, H_l, W_l, C) of one padded image size, `strides` their cells in pixels, `bins`
    = P. Where `valid` (B, N) is False the output is 0. Gradients flow to the features only: boxes are
    constants here, as in the paper. `images` (B', N) int32: whose box it is, where that is not its row; the
    boxes' leading axis may then be another one.

    sampling: 0 is the adaptive grid of mmcv's RoIAlign, a number that many samples a bin and axis.
    aligned: pixels and cells share one grid; without it everything is read half a cell too far to the lower
        right, as the first implementations do, and so the authors (with 2 samples).
    min_size: smaller boxes are taken as that large, in cells (torchvision: 1).
    extent: the largest box, in sides of the padded image; 1 for boxes clipped to it.
    """
    batch, channels = features[0].shape[0], features[0].shape[-1]
    shapes = tuple(level.shape[1:3] for level in features)
    boxes = lax.stop_gradient(boxes)
    if images is None:
        images = jnp.arange(batch, dtype=jnp.int32)[:, None]
    form = (bins, finest_scale, sampling, aligned, min_size, extent)
    plan = _plan(shapes, batch, strides, boxes, images, valid, *form)
    table = jnp.concatenate([level.reshape(-1, channels) for level in features])
    return _pool(table, plan, bins).reshape(*boxes.shape[:2], bins, bins, channels)
