"""Map functions over the valid rows of padded arrays, in time proportional to their number."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int, PyTree, Shaped


def map_valid(
    function: Callable[[PyTree, Bool[Array, " chunk"]], PyTree],
    valid: Bool[Array | np.ndarray, " rows"],
    arrays: PyTree,
    chunks: Sequence[int],
) -> PyTree:
    """Apply `function` to the valid rows of `arrays`; other rows of the result are zero.

    `function` takes a chunk of rows of `arrays` and a mask of those that exist. It returns a tree of arrays,
    in which each row depends only on its own input row. Chunks have the first size of `chunks` while enough
    valid rows are left, then the next size; the last size is used for the padded remainder. The number of
    chunks is known only on the device, so reverse-mode gradients are not supported.
    """
    m = valid.shape[0]
    order = jnp.argsort(~valid, stable=True)
    order = jnp.concatenate(
        [order, jnp.full(max(chunks), m, order.dtype)]
    )  # m is not a row, so it is never written
    count = jnp.sum(valid)

    def part(first: Int[Array, ""] | int, chunk: int) -> tuple[Int[Array, " chunk"], PyTree]:
        rows = lax.dynamic_slice(order, (first,), (chunk,))
        taken = jax.tree.map(lambda x: x.at[rows].get(mode="clip"), arrays)
        exist = first + jnp.arange(chunk) < count
        return jnp.where(exist, rows, m), function(taken, exist)

    shapes = jax.eval_shape(lambda: part(0, chunks[-1])[1])
    outputs = jax.tree.map(lambda x: jnp.zeros((m, *x.shape[1:]), x.dtype), shapes)
    done: Array | int = 0
    for place, chunk in enumerate(chunks, start=1):

        def write(i: Array, outputs: PyTree, done: Array | int = done, chunk: int = chunk) -> PyTree:
            rows, values = part(done + i * chunk, chunk)
            return jax.tree.map(lambda out, value: out.at[rows].set(value, mode="drop"), outputs, values)

        left = count - done
        steps = -(-left // chunk) if place == len(chunks) else left // chunk
        outputs = lax.fori_loop(0, steps, write, outputs)
        done += steps * chunk
    return outputs


def map_present(
    function: Callable[[PyTree], PyTree], valid: Bool[Array | np.ndarray, " rows"], arrays: PyTree, chunk: int
) -> PyTree:
    """`map_valid` with reverse-mode gradients; `function` takes only a chunk of `chunk` rows.

    All rows are split into chunks, valid rows first. Chunks without a valid row are skipped, in the gradient
    too. The memory for the gradient is that of all rows.
    """
    m = valid.shape[0]
    order = jnp.argsort(~valid, stable=True)
    order = jnp.concatenate([order, jnp.full(-m % chunk, m, order.dtype)]).reshape(-1, chunk)
    taken = jax.tree.map(lambda x: x.at[order].get(mode="clip"), arrays)
    exist = jnp.arange(order.size).reshape(-1, chunk) < jnp.sum(valid)

    def nothing(rows: PyTree) -> PyTree:
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, rows))

    def part(chunk: tuple[PyTree, Bool[Array, " chunk"]]) -> PyTree:
        rows, exist = chunk
        return lax.cond(exist[0], function, nothing, rows)

    def back(values: Shaped[Array, "chunks chunk ..."]) -> Shaped[Array, "_rows ..."]:
        shown = jnp.where(
            exist.reshape(-1, *(1,) * (values.ndim - 2)), values.reshape(-1, *values.shape[2:]), 0
        )
        empty = jnp.zeros((m, *shown.shape[1:]), shown.dtype)
        return empty.at[order.reshape(-1)].set(shown, mode="drop", unique_indices=True)

    return jax.tree.map(back, lax.map(part, (taken, exist)))
