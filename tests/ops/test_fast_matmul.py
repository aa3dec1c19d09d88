"""Products with a gradient of their own against the sums they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masktrack_jax.models import layers
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


@pytest.mark.parametrize("stride", [1, 2])
def test_layers_take_it_and_keep_their_type(stride):
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 3))
    for dtype in (jnp.float32, jnp.bfloat16):
        conv = layers.Conv(5, size=1, stride=stride, dtype=dtype)
        variables = conv.init(jax.random.key(0), x)
        y = conv.apply(variables, x)
        assert y.dtype == dtype and "custom_vjp_call" in str(jax.make_jaxpr(conv.apply)(variables, x))
        kernel = np.asarray(variables["params"]["conv"]["kernel"], "f8")
        wanted = x[:, ::stride, ::stride] @ kernel
        np.testing.assert_allclose(y.astype("f4"), wanted, atol=1e-5 if dtype == jnp.float32 else 0.1)
        gradients = jax.grad(lambda v, conv=conv: conv.apply(v, x).astype("f4").sum())(variables)["params"][
            "conv"
        ]
        assert gradients["kernel"].dtype == jnp.float32
