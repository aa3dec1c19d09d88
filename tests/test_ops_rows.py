"""Work on the rows that exist against the same work on all of them."""

import jax
import numpy as np
import pytest

from masktrack_jax.ops.rows import map_valid


@pytest.mark.parametrize("chunk", [1, 4, 16])
@pytest.mark.parametrize("count", [0, 1, 4, 7, 11])
def test_rows_are_those_of_the_whole_and_zero_elsewhere(count, chunk):
    rng = np.random.default_rng(count)
    valid = rng.permutation(np.arange(11) < count)
    arrays = {"a": rng.integers(-9, 9, (11, 3)).astype("f4"), "b": rng.integers(1, 9, 11).astype("i4")}
    calls = []

    def function(rows, exist):
        assert rows["a"].shape == (chunk, 3) and exist.shape == (chunk,)
        jax.debug.callback(lambda exist: calls.append(int(exist.sum())), exist)
        return rows["a"] * rows["b"][:, None] + 1, rows["b"] + 1

    product, increased = jax.jit(lambda *x: map_valid(function, *x, chunk))(valid, arrays)
    jax.effects_barrier()
    wanted = np.where(valid[:, None], arrays["a"] * arrays["b"][:, None] + 1, 0)
    np.testing.assert_array_equal(product, wanted)
    np.testing.assert_array_equal(increased, np.where(valid, arrays["b"] + 1, 0))
    assert len(calls) == -(-count // chunk) and sum(calls) == count
