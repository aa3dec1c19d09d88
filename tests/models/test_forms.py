"""The forms of each platform, and layers in a CPU's forms against the plain sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masktrack_jax.models import forms, layers
from masktrack_jax.ops import winograd
from tests.helpers.networks import slow_conv


def test_the_platform_chooses_the_forms(monkeypatch):
    for platform, chosen in forms.PLATFORMS.items():
        monkeypatch.setattr(jax, "default_backend", lambda platform=platform: platform)
        assert forms.forms() == chosen
    assert forms.forms_of("tpu", "TPU v4") == forms.TPU._replace(roi="dense")
    assert forms.forms_of("tpu", "TPU v5 lite") == forms.TPU


@pytest.mark.parametrize("platform", forms.PLATFORMS)
def test_programs_of_accelerators_contain_convolutions_and_products_of_xla_alone(platform):
    image = jnp.zeros((1, 32, 32, 64))
    with forms.use_forms(forms.PLATFORMS[platform]):
        for size in (1, 3):
            conv = layers.Conv(64, size)
            program = str(jax.make_jaxpr(conv.init)(jax.random.key(0), image))
            assert ("custom_vjp_call" in program) == (platform == "cpu")
    assert forms.forms() == forms.CPU


def test_convolutions_take_winograd_where_it_pays_and_nothing_changes():
    rng = np.random.default_rng(1)
    cases = ((24, 64, False, 6), (24, 64, True, 1), (16, 64, False, 1), (24, 32, False, 1))
    for size, channels, exact, products in cases:
        x = jnp.asarray(rng.normal(size=(1, size, size, channels)), "f4")
        conv = layers.Conv(64, exact=exact)
        variables = conv.init(jax.random.key(0), x)
        assert str(jax.make_jaxpr(conv.apply)(variables, x)).count("conv_general_dilated[") == products
        kernel = variables["params"]["conv"]["kernel"]

        def total(apply, x, kernel):
            return jnp.sum(jnp.sin(apply(x, kernel)))

        def ours(x, kernel, conv=conv, bias=variables["params"]["conv"]["bias"]):
            return conv.apply({"params": {"conv": {"kernel": kernel, "bias": bias}}}, x)

        np.testing.assert_allclose(ours(x, kernel), slow_conv(np.asarray(x), kernel), atol=5e-5)
        pair = (jax.grad(total, (1, 2))(f, x, kernel) for f in (ours, winograd.plain_conv3x3))
        for got, wanted in zip(*pair):
            np.testing.assert_allclose(got, wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("stride", [1, 2])
def test_matrix_products_keep_their_type(stride):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 6, 3)), "f4")
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


@pytest.mark.parametrize("images", [1, 8])
def test_products_of_many_images_are_convolutions_on_a_tpu(images):
    """With the values and gradients of the product."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(images, 4, 6, 3)), "f4")
    conv = layers.Conv(64, size=1)
    variables = conv.init(jax.random.key(0), x)
    with forms.use_forms(forms.TPU):
        program = str(jax.make_jaxpr(conv.apply)(variables, x))
        y, pull = jax.vjp(lambda v: conv.apply(v, x), variables)
    assert ("conv_general_dilated" in program) == (images == 8)
    kernel = np.asarray(variables["params"]["conv"]["kernel"], "f8")
    np.testing.assert_allclose(y, x @ kernel, atol=1e-5)
    (gradient,) = pull(jnp.ones_like(y))
    wanted = np.broadcast_to(np.asarray(x, "f8").sum((0, 1, 2))[:, None], kernel.shape)
    np.testing.assert_allclose(gradient["params"]["conv"]["kernel"], wanted, atol=1e-4)
