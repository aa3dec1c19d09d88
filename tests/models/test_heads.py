"""Heads against their definitions in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masktrack_jax.losses.tracking import match_logits
from masktrack_jax.models.box_head import BoxHead
from masktrack_jax.models.mask_head import Deconv, MaskHead
from masktrack_jax.models.rpn_head import RPNHead
from masktrack_jax.models.track_head import HEADS, ConvTrackHead, TrackHead, build_track_head
from tests.models.test_resnet import conv_of, randomised, shapes_of


def dense(params, name, x):
    return x @ params[name]["kernel"] + params[name]["bias"]


def relu(x):
    return np.maximum(x, 0)


def scatter_deconv(x, kernel, bias):
    """out[2i + a, 2j + b] = x[i, j] @ W[a, b], one cell at a time."""
    n, h, w, _ = x.shape
    out = np.zeros((n, 2 * h, 2 * w, kernel.shape[-1]))
    for i, j, a, b in np.ndindex(h, w, 2, 2):
        out[:, 2 * i + a, 2 * j + b] += x[:, i, j] @ kernel[a, b]
    return out + bias


def test_deconv_scatters():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype("f4")
    params = randomised(shapes_of(Deconv(6), x))["params"]
    wanted = scatter_deconv(x, params["kernel"], params["bias"])
    np.testing.assert_allclose(Deconv(6).apply({"params": params}, x), wanted, atol=2e-5)


def test_mask_head_gives_the_mask_of_the_label():
    roi = np.random.default_rng(1).normal(size=(6, 4, 4, 5)).astype("f4")
    labels = np.array([0, 2, 1, 2, 0, 0])
    module = MaskHead(3, convs=2, channels=7)
    params = randomised(shapes_of(module, roi, labels))["params"]
    x = roi
    for name in ("conv1", "conv2"):
        x = relu(conv_of(params[name], x))
    x = relu(scatter_deconv(x, params["deconv"]["kernel"], params["deconv"]["bias"]))
    every = x @ params["logits_kernel"] + params["logits_bias"]
    got = module.apply({"params": params}, roi, labels)
    np.testing.assert_allclose(got, every[np.arange(6), :, :, labels], atol=3e-5)


def test_rpn_head_orders_as_the_anchors():
    """Output (level, y, x, ratio), four deltas of a ratio side by side."""
    rng = np.random.default_rng(2)
    features = tuple(rng.normal(size=(2, h, w, 5)).astype("f4") for h, w in ((4, 6), (2, 3)))
    module = RPNHead(7)
    params = randomised(shapes_of(module, features))["params"]
    logits, deltas = module.apply({"params": params}, features)
    assert logits.shape == (2, 3 * 30) and deltas.shape == (2, 3 * 30, 4)
    hidden = [relu(conv_of({"conv": params["conv"]}, x)) for x in features]
    for level, y, x, ratio, at in ((0, 2, 5, 1, 3 * (2 * 6 + 5) + 1), (1, 1, 0, 2, 3 * (24 + 3) + 2)):
        cell = hidden[level][:, y, x]
        wanted = dense(params["logits"], "conv", cell)[:, ratio]
        np.testing.assert_allclose(logits[:, at], wanted, atol=2e-5)
        wanted = dense(params["deltas"], "conv", cell)[:, 4 * ratio : 4 * ratio + 4]
        np.testing.assert_allclose(deltas[:, at], wanted, atol=2e-5)


def test_box_head_is_two_layers_and_two_outputs():
    roi = np.random.default_rng(3).normal(size=(4, 7, 7, 3)).astype("f4")
    module = BoxHead(2, features=6)
    params = randomised(shapes_of(module, roi))["params"]
    x = relu(dense(params, "fc2", relu(dense(params, "fc1", roi.reshape(4, -1)))))
    logits, deltas = module.apply({"params": params}, roi)
    np.testing.assert_allclose(logits, dense(params, "logits", x), atol=2e-5)
    np.testing.assert_allclose(deltas, dense(params, "deltas", x).reshape(4, 2, 4), atol=2e-5)


@pytest.mark.parametrize("relu_last", [True, False])
def test_track_head_ends_as_asked(relu_last):
    roi = np.random.default_rng(4).normal(size=(5, 7, 7, 3)).astype("f4")
    module = TrackHead(8, relu_last)
    params = randomised(shapes_of(module, roi))["params"]
    x = dense(params, "fc2", relu(dense(params, "fc1", roi.reshape(5, -1))))
    assert x.min() < 0
    got = module.apply({"params": params}, roi)
    np.testing.assert_allclose(got, relu(x) if relu_last else x, atol=2e-5)


def test_plain_track_head_is_its_definition():
    roi = np.random.default_rng(4).normal(size=(5, 7, 7, 3)).astype("f4")
    module = ConvTrackHead(8)
    params = randomised(shapes_of(module, roi))["params"]
    wanted = dense(params, "fc", relu(conv_of({"conv": params["conv"]}, roi)).mean((1, 2)))
    np.testing.assert_allclose(module.apply({"params": params}, roi), wanted, atol=2e-5)


def test_track_heads_by_kind():
    """Each takes the options that it has; all give (M, E) from (M, 7, 7, C)."""
    options = {"features": 6, "relu_last": False, "init_std": 0.5}
    for kind, head in HEADS.items():
        module = build_track_head({"kind": kind, **options}, jnp.float32)
        assert isinstance(module, head) and module.features == 6
        shape = jax.eval_shape(lambda x, m=module: m.init_with_output(jax.random.key(0), x)[0], ROI)
        assert shape.shape == (5, 6) and shape.dtype == jnp.float32
    assert build_track_head({"kind": "fc", **options}, jnp.float32) == TrackHead(6, False, 0.5)


ROI = jax.ShapeDtypeStruct((5, 7, 7, 3), "float32")


def test_match_logits_are_products_after_a_zero():
    a, b = (np.random.default_rng(5).normal(size=(2, n, 6)).astype("f4") for n in (3, 4))
    got = match_logits(a, b)
    assert got.shape == (2, 3, 5) and not np.any(got[..., 0])
    for image, i, j in np.ndindex(2, 3, 4):
        np.testing.assert_allclose(got[image, i, 1 + j], a[image, i] @ b[image, j], rtol=1e-4, atol=1e-5)
    assert match_logits(a[0], b[0, :0]).shape == (3, 1)


@pytest.mark.parametrize(
    "make, arrays",
    [
        (lambda dtype: BoxHead(3, 16, dtype=dtype), ((4, 7, 7, 8),)),
        (lambda dtype: TrackHead(16, dtype=dtype), ((4, 7, 7, 8),)),
        (lambda dtype: ConvTrackHead(16, dtype=dtype), ((4, 7, 7, 8),)),
        (lambda dtype: MaskHead(3, 1, 8, dtype=dtype), ((4, 14, 14, 8), np.arange(4) % 3)),
        (lambda dtype: RPNHead(8, dtype=dtype), (((1, 8, 8, 8), (1, 4, 4, 8)),)),
    ],
    ids=["box", "track", "plain track", "mask", "rpn"],
)
def test_bfloat16_heads_give_float32_outputs(make, arrays):
    rng = np.random.default_rng(6)

    def fill(shape):
        if isinstance(shape, np.ndarray):
            return shape
        return tuple(map(fill, shape)) if isinstance(shape[0], tuple) else rng.normal(size=shape).astype("f4")

    arrays = [fill(shape) for shape in arrays]
    variables = randomised(shapes_of(make(jnp.bfloat16), *arrays))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
    exact, rough = (jax.tree.leaves(make(d).apply(variables, *arrays)) for d in (jnp.float32, jnp.bfloat16))
    for a, b in zip(exact, rough, strict=True):
        assert b.dtype == jnp.float32
        assert 0 < np.linalg.norm(a - b) / np.linalg.norm(a) < 0.03
