"""RoIAlign as products with dense matrices: the form of a GPU, and of a TPU whose memory is too small.

The weights of all columns, and of all rows, of a level are a matrix for each box, mostly zeros. No loop,
gather or scatter depends on the boxes, so nothing waits for the host, and the gradient adds in one order.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PyTree

from masktrack_jax.ops.roi_samples import (
    Interval,
    Levels,
    Placed,
    RoIAlignOptions,
    cell_weights,
    largest_bin,
    split_bfloat16,
)

BUDGET = 2**31  # bytes of the largest intermediate array, (images, boxes, bins, columns, channels)

_product = partial(jnp.einsum, precision=lax.Precision.HIGHEST)  # no TensorFloat-32


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def pool(
    levels: Levels, boxes: Placed, bins: int, options: RoIAlignOptions
) -> Float[Array, "groups boxes {bins} {bins} channels"]:
    """RoI features of boxes, a fixed number of boxes at a time."""
    dtype = levels[0].dtype
    wide = jnp.promote_types(dtype, jnp.float32)  # never sum in bfloat16
    turned = [jnp.swapaxes(level, 1, 2) for level in levels]  # so that no intermediate array is transposed
    if (
        dtype == jnp.bfloat16
    ):  # once for each half of the weights: the cells are exact, so the weights have to be
        turned = [jnp.concatenate([level, level], axis=1) for level in turned]

    def pool_chunk(part: Placed) -> Float[Array, "groups chunk bins bins channels"]:
        total = jnp.zeros((), wide)
        for level, (rows, columns) in zip(turned, _weights(levels, part, bins, options), strict=True):
            if dtype == jnp.bfloat16:
                columns = jnp.concatenate(split_bfloat16(columns), axis=-1)
            across = _product("bnjx,bxyc->bnjyc", columns, level, preferred_element_type=wide)
            total += _product("bnjiy,bnjyc->bnjic", rows, across)
        if boxes.image is not None:  # each box has weights in one image only
            total = jnp.sum(total, axis=0, keepdims=True)
        return jnp.swapaxes(total, 2, 3).astype(dtype)

    out = lax.map(pool_chunk, _chunks(boxes, boxes, levels, bins))
    out = jnp.moveaxis(out, 0, 1).reshape(out.shape[1], -1, *out.shape[3:])
    count = boxes.valid.size // out.shape[0]
    return out[:, :count].reshape(*boxes.valid.shape, *out.shape[2:])


def _forward(
    levels: Levels, boxes: Placed, bins: int, options: RoIAlignOptions
) -> tuple[Float[Array, "groups boxes {bins} {bins} channels"], tuple[Levels, Placed]]:
    return pool(levels, boxes, bins, options), (levels, boxes)


def backward(
    bins: int,
    options: RoIAlignOptions,
    residuals: tuple[Levels, Placed],  # of the levels, only the shapes are used
    gradient: Float[Array, "groups boxes {bins} {bins} channels"],
) -> tuple[Levels, None]:
    levels, boxes = residuals
    wide = jnp.promote_types(levels[0].dtype, jnp.float32)

    def add_chunk(total: list[Array], chunk: tuple[Placed, Array]) -> tuple[list[Array], None]:
        part, gradient = chunk
        turned = jnp.swapaxes(gradient, 2, 3).astype(wide)
        turned = jnp.broadcast_to(turned, (len(levels[0]), *turned.shape[1:]))
        for k, (rows, columns) in enumerate(_weights(levels, part, bins, options)):
            across = _product("bnjiy,bnjic->bnjyc", rows, turned)
            total[k] += _product("bnjx,bnjyc->bxyc", columns, across)
        return total, None

    zeros = [jnp.zeros(jnp.swapaxes(level, 1, 2).shape, wide) for level in levels]
    total, _ = lax.scan(add_chunk, zeros, _chunks((boxes, gradient), boxes, levels, bins))
    return tuple(jnp.swapaxes(part, 1, 2).astype(levels[0].dtype) for part in total), None


pool.defvjp(_forward, backward)


def _weights(
    levels: Levels, boxes: Placed, bins: int, options: RoIAlignOptions
) -> list[
    tuple[Float[Array, "batch boxes {bins} {bins} _rows"], Float[Array, "batch boxes {bins} _columns"]]
]:
    """The weights of the rows and columns of each level. Rows of other levels and images have weight 0.

    The weights of rows are repeated for each column of bins, as the products need them.
    """

    def along(axis: int, interval: Interval) -> Float[Array, "groups boxes bins cells"]:
        cells = jnp.arange(max(level.shape[axis] for level in levels))
        return cell_weights(interval, bins, options.sampling, largest_bin(levels, axis, bins, options), cells)

    rows, columns = along(1, boxes.rows), along(2, boxes.columns)
    batch, count = len(levels[0]), boxes.valid.shape[1]
    own = boxes.valid if boxes.image is None else boxes.valid & (boxes.image == jnp.arange(batch)[:, None])
    columns = jnp.broadcast_to(columns, (batch, *columns.shape[1:]))

    def of(k: int) -> tuple[Array, Array]:
        height, width = levels[k].shape[1:3]
        here = (own & (boxes.level == k))[..., None, None, None]
        mine = jnp.where(here, rows[:, :, None, :, :height], 0)
        return jnp.broadcast_to(mine, (batch, count, bins, bins, height)), columns[..., :width]

    return [of(k) for k in range(len(levels))]


def _chunks(tree: PyTree, boxes: Placed, levels: Levels, bins: int) -> PyTree:
    """Split arrays (groups, boxes, …) into (chunks, groups, boxes of a chunk, …), padded with zeros.

    Boxes that name their images are one group.
    """
    batch, height, _, channels = levels[0].shape
    one = batch * bins * height * channels * jnp.promote_types(levels[0].dtype, jnp.float32).itemsize
    groups = 1 if boxes.image is not None else len(boxes.valid)
    count = boxes.valid.size // groups
    number = -(-count // max(1, BUDGET // one))
    size = -(-count // (8 * number)) * 8  # a GPU's products would pad and copy other sizes
    number = -(-count // size)

    def cut(array: Array) -> Array:
        array = array.reshape(groups, count, *array.shape[2:])
        array = jnp.pad(array, [(0, 0), (0, number * size - count)] + [(0, 0)] * (array.ndim - 2))
        return jnp.moveaxis(array.reshape(groups, number, size, *array.shape[2:]), 1, 0)

    return jax.tree.map(cut, tree)
