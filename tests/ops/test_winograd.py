"""Convolutions with fewer multiplications against the sum they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masktrack_jax.models import layers
from masktrack_jax.ops import winograd


def slow_conv(x, kernel):
    """3×3 convolution of x (B, H, W, C), zero padding of 1, in float64."""
    _, height, width, _ = x.shape
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    parts = (padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))
    return sum(parts)


def test_the_matrices_give_the_correlation():
    rng = np.random.default_rng(0)
    for rows, taps, points in ((2, 3, (0, 1, -1)), (4, 3, winograd.POINTS), (3, 2, (0, 1, -1))):
        out, kernel, into = winograd.matrices(rows, taps, points)
        d, g = rng.normal(size=rows + taps - 1), rng.normal(size=taps)
        wanted = np.correlate(d, g, "valid")
        np.testing.assert_allclose(out @ ((kernel @ g) * (into @ d)), wanted, atol=1e-12)


@pytest.mark.parametrize("height", [1, 3, 4, 5, 12])
def test_it_is_the_convolution(height):
    rng = np.random.default_rng(height)
    x = rng.normal(size=(2, height, 7, 5)).astype("f4")
    kernel = rng.normal(size=(3, 3, 5, 6)).astype("f4")
    got = jax.jit(winograd.conv3x3)(x, kernel)
    assert got.shape == (2, height, 7, 6)
    np.testing.assert_allclose(got, slow_conv(x, kernel), atol=5e-5)


def test_layers_take_it_where_it_pays_and_nothing_changes():
    rng = np.random.default_rng(1)
    cases = ((24, 64, False, 6), (24, 64, True, 1), (16, 64, False, 1), (24, 32, False, 1))
    for size, channels, exact, products in cases:
        x = rng.normal(size=(1, size, size, channels)).astype("f4")
        conv = layers.Conv(64, exact=exact)
        variables = conv.init(jax.random.key(0), x)
        assert str(jax.make_jaxpr(conv.apply)(variables, x)).count("conv_general_dilated[") == products
        kernel = np.asarray(variables["params"]["conv"]["kernel"])

        def total(apply, x, kernel):
            return jnp.sum(jnp.sin(apply(x, kernel)))

        def ours(x, kernel, conv=conv, bias=variables["params"]["conv"]["bias"]):
            return conv.apply({"params": {"conv": {"kernel": kernel, "bias": bias}}}, x)

        np.testing.assert_allclose(ours(x, kernel), slow_conv(x, kernel), atol=5e-5)
        pair = (jax.grad(total, (1, 2))(f, x, kernel) for f in (ours, winograd.plain_conv3x3))
        for got, wanted in zip(*pair):
            np.testing.assert_allclose(got, wanted, atol=1e-5 * np.abs(wanted).max())
