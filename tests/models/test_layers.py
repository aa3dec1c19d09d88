"""Convolutions, norms and initialisers against their definitions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masktrack_jax.models import layers
from tests.helpers.networks import apply, batch_norm, conv, randomised, shapes_of


@pytest.mark.parametrize("size, stride", [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)])
def test_conv_is_lax_conv(size, stride):
    x = np.random.default_rng(0).normal(size=(2, 9, 12, 4)).astype("f4")
    module = layers.Conv(5, size, stride)
    params = randomised(shapes_of(module, x))["params"]["conv"]
    kernel = params["kernel"].reshape(size, size, 4, 5)
    got = apply(module, {"params": {"conv": params}}, x)
    np.testing.assert_allclose(got, conv(x, kernel, stride) + params["bias"], atol=2e-5)


def test_frozen_batch_norm_is_the_formula():
    x = np.random.default_rng(1).normal(size=(2, 3, 4, 5)).astype("f4")
    variables = randomised(shapes_of(layers.FrozenBatchNorm(), x))
    p, s = variables["params"], variables["batch_stats"]
    got = apply(layers.FrozenBatchNorm(), variables, x)
    np.testing.assert_allclose(got, batch_norm(p, s, x), atol=1e-5)


@pytest.mark.parametrize("channels, groups", [(16, 2), (8, 1), (64, 8), (256, 32), (512, 32)])
def test_group_norm_is_the_definition(channels, groups):
    x = np.random.default_rng(2).normal(3, 2, size=(2, 5, 6, channels)).astype("f4")
    variables = randomised(shapes_of(layers.GroupNorm(), x))
    parts = x.astype(np.float64).reshape(2, 30, groups, -1)
    mean, var = (f(parts, axis=(1, 3), keepdims=True) for f in (np.mean, np.var))
    wanted = ((parts - mean) / np.sqrt(var + 1e-5)).reshape(x.shape)
    wanted = wanted * variables["params"]["scale"] + variables["params"]["bias"]
    np.testing.assert_allclose(apply(layers.GroupNorm(), variables, x), wanted, atol=3e-5)


def test_published_initialisers():
    """Kaiming normal over the fan out, and Xavier uniform."""
    weights = layers.kaiming_fan_out(jax.random.key(0), (3, 3, 64, 128))
    assert float(jnp.std(weights)) == pytest.approx(math.sqrt(2 / (9 * 128)), rel=0.02)
    weights = layers.xavier_uniform(jax.random.key(0), (3, 3, 64, 128))
    limit = math.sqrt(6 / (9 * 64 + 9 * 128))
    assert 0.99 * limit < float(jnp.max(jnp.abs(weights))) <= limit
