"""The mask head and its deconvolution against their definitions in NumPy."""

import numpy as np

from masktrack_jax.models.mask_head import Deconv, MaskHead
from tests.helpers.networks import apply, conv_of, randomised, relu, scatter_deconv, shapes_of


def test_deconv_scatters():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype("f4")
    params = randomised(shapes_of(Deconv(6), x))["params"]
    wanted = scatter_deconv(x, params["kernel"], params["bias"])
    np.testing.assert_allclose(apply(Deconv(6), {"params": params}, x), wanted, atol=2e-5)


def test_mask_head_gives_the_mask_of_the_label():
    roi = np.random.default_rng(1).normal(size=(6, 4, 4, 5)).astype("f4")
    labels = np.array([0, 2, 1, 2, 0, 0])
    module = MaskHead(3, convs=2, channels=7, norm="none")
    params = randomised(shapes_of(module, roi, labels))["params"]
    x = roi
    for name in ("conv1", "conv2"):
        x = relu(conv_of(params[name], x))
    x = relu(scatter_deconv(x, params["deconv"]["kernel"], params["deconv"]["bias"]))
    every = x @ params["logits_kernel"] + params["logits_bias"]
    got = apply(module, {"params": params}, roi, labels)
    np.testing.assert_allclose(got, every[np.arange(6), :, :, labels], atol=3e-5)
