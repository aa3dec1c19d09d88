"""Functions mapped over the valid rows, against the same functions on all rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masktrack_jax.ops.valid_rows import map_present, map_valid


@pytest.mark.parametrize("chunks", [(1,), (4,), (16,), (4, 1), (2, 3), (16, 4)])
@pytest.mark.parametrize("count", [0, 1, 4, 7, 11])
def test_rows_are_those_of_the_whole_and_zero_elsewhere(count, chunks):
    rng = np.random.default_rng(count)
    valid = rng.permutation(np.arange(11) < count)
    arrays = {"a": rng.integers(-9, 9, (11, 3)).astype("f4"), "b": rng.integers(1, 9, 11).astype("i4")}
    calls = []

    def function(rows, exist):
        assert rows["a"].shape == (len(rows["b"]), 3) and exist.shape == (len(rows["b"]),)
        jax.debug.callback(lambda exist: calls.append((len(exist), int(exist.sum()))), exist, ordered=True)
        return rows["a"] * rows["b"][:, None] + 1, rows["b"] + 1

    product, increased = jax.jit(lambda *x: map_valid(function, *x, chunks))(valid, arrays)
    jax.effects_barrier()
    wanted = np.where(valid[:, None], arrays["a"] * arrays["b"][:, None] + 1, 0)
    np.testing.assert_array_equal(product, wanted)
    np.testing.assert_array_equal(increased, np.where(valid, arrays["b"] + 1, 0))
    large = count // chunks[0] if len(chunks) > 1 else 0
    left = count - large * chunks[0]
    assert [n for n, _ in calls] == [chunks[0]] * large + [chunks[-1]] * -(-left // chunks[-1])
    assert sum(exist for _, exist in calls) == count


@pytest.mark.parametrize("count", [0, 1, 4, 7, 11])
def test_present_rows_and_their_gradients_are_those_of_the_whole(count):
    rng = np.random.default_rng(count)
    valid = rng.permutation(np.arange(11) < count)
    x, weights, pull = (jnp.asarray(rng.normal(size=s), "f4") for s in ((11, 3), (3, 2), (11, 2)))
    calls = []

    def function(weights, x):
        jax.debug.callback(lambda: calls.append(1))
        return jnp.sin(x @ weights)

    def chunked(x, weights):
        return jnp.vdot(pull, map_present(lambda x: function(weights, x), valid, x, 4))

    def whole(x, weights):
        return jnp.vdot(pull, jnp.where(valid[:, None], jnp.sin(x @ weights), 0))

    got = map_present(lambda x: jnp.sin(x @ weights), valid, x, 4)
    np.testing.assert_allclose(got, np.where(valid[:, None], np.sin(x @ weights), 0), atol=1e-6)
    gradients = jax.jit(jax.grad(chunked, (0, 1)))(x, weights)
    jax.effects_barrier()
    assert len(calls) == -(-count // 4)
    for got, wanted in zip(gradients, jax.grad(whole, (0, 1))(x, weights)):
        np.testing.assert_allclose(got, wanted, atol=1e-6)
