"""Convolutions with fewer multiplications against the plain sum in float64."""

import jax
import numpy as np
import pytest

from masktrack_jax.ops import winograd
from tests.helpers.networks import slow_conv


def test_the_matrices_give_the_correlation():
    rng = np.random.default_rng(0)
    for rows, taps, points in ((2, 3, (0.0, 1.0, -1.0)), (4, 3, winograd.POINTS), (3, 2, (0.0, 1.0, -1.0))):
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
