"""Matrix products with a custom gradient, against sums in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masktrack_jax.ops.fast_matmul import product


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 4, 3)])
def test_product_and_gradients_are_the_sums(shape):
    rng = np.random.default_rng(len(shape))
    x, kernel, pull = (rng.normal(size=s) for s in ((*shape, 6), (6, 7), (*shape, 7)))
    got, pullback = jax.vjp(product, jnp.asarray(x, "f4"), jnp.asarray(kernel, "f4"))
    gradients = pullback(jnp.asarray(pull, "f4"))
    np.testing.assert_allclose(got, np.einsum("...c,ck->...k", x, kernel), atol=1e-5)
    np.testing.assert_allclose(gradients[0], np.einsum("...k,ck->...c", pull, kernel), atol=1e-5)
    np.testing.assert_allclose(gradients[1], x.reshape(-1, 6).T @ pull.reshape(-1, 7), atol=1e-5)
