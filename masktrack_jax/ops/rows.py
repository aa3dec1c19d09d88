"""Work on the rows of padded arrays that exist, in time that goes with their number."""

import jax
import jax.numpy as jnp
from jax import lax


def map_valid(function, valid, arrays, chunk):
    """`function` of the rows of `arrays` (M, …) where `valid` (M,); zeros elsewhere.

    `function` takes a tree of (`chunk`, …) arrays like `arrays` and which of its rows exist (`chunk`,), and
    returns a tree of (`chunk`, …) arrays, each row of its own row alone. It runs ceil(valid rows / `chunk`)
    times, a number known on the device only: not for reverse-mode gradients.
    """
    m = valid.shape[0]
    order = jnp.argsort(~valid, stable=True)
    order = jnp.concatenate([order, jnp.full(-m % chunk, m, order.dtype)])  # M is no row: never written
    count = jnp.sum(valid)

    def part(i):
        rows = lax.dynamic_slice(order, (i * chunk,), (chunk,))
        taken = jax.tree.map(lambda x: x.at[rows].get(mode="clip"), arrays)
        exist = i * chunk + jnp.arange(chunk) < count
        return jnp.where(exist, rows, m), function(taken, exist)

    def write(i, outputs):
        rows, values = part(i)
        return jax.tree.map(lambda out, value: out.at[rows].set(value, mode="drop"), outputs, values)

    shapes = jax.eval_shape(lambda: part(0)[1])
    empty = jax.tree.map(lambda x: jnp.zeros((m, *x.shape[1:]), x.dtype), shapes)
    return lax.fori_loop(0, (count + chunk - 1) // chunk, write, empty)


def map_present(function, valid, arrays, chunk):
    """As `map_valid`, with reverse-mode gradients; `function` takes the (`chunk`, …) arrays alone.

    All M rows are cut into chunks, the valid ones first, and a chunk without a valid row is passed over, in
    the gradient too. What is kept for the gradient is that of M rows.
    """
    m = valid.shape[0]
    order = jnp.argsort(~valid, stable=True)
    order = jnp.concatenate([order, jnp.full(-m % chunk, m, order.dtype)]).reshape(-1, chunk)
    taken = jax.tree.map(lambda x: x.at[order].get(mode="clip"), arrays)
    exist = jnp.arange(order.size).reshape(-1, chunk) < jnp.sum(valid)

    def nothing(rows):
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, rows))

    def part(chunk):
        rows, exist = chunk
        return lax.cond(exist[0], function, nothing, rows)

    def back(values):
        shown = jnp.where(
            exist.reshape(-1, *(1,) * (values.ndim - 2)), values.reshape(-1, *values.shape[2:]), 0
        )
        empty = jnp.zeros((m, *shown.shape[1:]), shown.dtype)
        return empty.at[order.reshape(-1)].set(shown, mode="drop", unique_indices=True)

    return jax.tree.map(back, lax.map(part, (taken, exist)))
