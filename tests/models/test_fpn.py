"""The feature pyramid against its diagram."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masktrack_jax.models.forms import PLATFORMS, use_forms
from masktrack_jax.models.fpn import FPN, upsample
from tests.helpers.networks import apply, conv_of, randomised, shapes_of


def test_fpn_is_its_diagram():
    """Lin et al. 2017: laterals, upsampling and sums from the top down, 3×3 outputs, and P6 from P5."""
    rng = np.random.default_rng(5)
    features = tuple(rng.normal(size=(2, 32 // s, 48 // s, 3 * s)).astype("f4") for s in (1, 2, 4, 8))
    module = FPN(channels=7, norm="none")
    params = randomised(shapes_of(module, features))["params"]

    def at(name, x):
        return conv_of(params[name], x)

    inner = at("lateral5", features[3])
    wanted = [at("output5", inner)]
    for i in (4, 3, 2):
        inner = at(f"lateral{i}", features[i - 2]) + np.repeat(np.repeat(inner, 2, 1), 2, 2)
        wanted.insert(0, at(f"output{i}", inner))
    got = apply(module, {"params": params}, features)
    for level, expected in zip(got, [*wanted, wanted[-1][:, ::2, ::2]], strict=True):
        np.testing.assert_allclose(level, expected, atol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("images", [1, 8])  # few and many, see `forms.are_many`
def test_upsample_repeats_cells(images, platform, dtype):
    """Exactly, and its gradient sums the cells."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(images, 2, 3, 2)), dtype)
    with use_forms(PLATFORMS[platform]):
        y, pull = jax.vjp(upsample, x)
    np.testing.assert_array_equal(y, np.repeat(np.repeat(x, 2, 1), 2, 2))
    cells = np.broadcast_to(np.arange(48).reshape(4, 6, 2), (images, 4, 6, 2))
    (gradient,) = pull(jnp.asarray(cells, dtype))
    wanted = cells.reshape(images, 2, 2, 3, 2, 2).sum((2, 4))
    np.testing.assert_array_equal(gradient, wanted)
