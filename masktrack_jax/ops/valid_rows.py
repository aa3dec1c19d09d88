"""Work on the rows of padded arrays that exist, in time that goes with their number."""

import jax
import jax.numpy as jnp
from jax import lax


def map_valid(function, valid, arrays, chunks):
    """`function` of the rows of `arrays` (M, …) where `valid` (M,); zeros elsewhere.

    `function` takes a tree of (n, …) arrays like `arrays` and which of its rows exist (n,), and returns a
    tree of (n, …) arrays, each row of its own row alone. n is the first of `chunks` as long as so many valid
    rows are left, then the next, and in the end the last, filled up: steps whose number is known on the
    device only, so not for reverse-mode gradients.
    """
    m = valid.shape[0]
    order = jnp.argsort(~valid, stable=True)
    order = jnp.concatenate([order, jnp.full(max(chunks), m, order.dtype)])  # M is no row: never written
    count = jnp.sum(valid)

    def part(first, chunk):
        rows = lax.dynamic_slice(order, (first,), (chunk,))
        taken = jax.tree.map(lambda x: x.at[rows].get(mode="clip"), arrays)
        exist = first + jnp.arange(chunk) < count
        return jnp.where(exist, rows, m), function(taken, exist)

    shapes = jax.eval_shape(lambda: part(0, chunks[-1])[1])
    outputs = jax.tree.map(lambda x: jnp.zeros((m, *x.shape[1:]), x.dtype), shapes)
    done = 0
    for place, chunk in enumerate(chunks, start=1):

        def write(i, outputs, done=done, chunk=chunk):
            rows, values = part(done + i * chunk, chunk)
            return jax.tree.map(lambda out, value: out.at[rows].set(value, mode="drop"), outputs, values)

        left = count - done
        steps = -(-left // chunk) if place == len(chunks) else left // chunk
        outputs = lax.fori_loop(0, steps, write, outputs)
        done += steps * chunk
    return outputs


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
