"""Tracking heads against their definitions in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masktrack_jax.models.track_head import HEADS, ConvTrackHead, TrackHead, build_track_head
from tests.helpers.networks import apply, conv_of, dense, randomised, relu, shapes_of

ROI = jax.ShapeDtypeStruct((5, 7, 7, 3), "float32")


@pytest.mark.parametrize("relu_last", [True, False])
def test_track_head_ends_as_asked(relu_last):
    roi = np.random.default_rng(4).normal(size=(5, 7, 7, 3)).astype("f4")
    module = TrackHead(8, relu_last, init_std=0.0)
    params = randomised(shapes_of(module, roi))["params"]
    x = dense(params, "fc2", relu(dense(params, "fc1", roi.reshape(5, -1))))
    assert x.min() < 0
    got = apply(module, {"params": params}, roi)
    np.testing.assert_allclose(got, relu(x) if relu_last else x, atol=2e-5)


def test_plain_track_head_is_its_definition():
    roi = np.random.default_rng(4).normal(size=(5, 7, 7, 3)).astype("f4")
    module = ConvTrackHead(8)
    params = randomised(shapes_of(module, roi))["params"]
    wanted = dense(params, "fc", relu(conv_of({"conv": params["conv"]}, roi)).mean((1, 2)))
    np.testing.assert_allclose(apply(module, {"params": params}, roi), wanted, atol=2e-5)


def test_track_heads_by_kind():
    """Each kind takes the options that it has, and all give an embedding of each RoI."""
    options = {"features": 6, "relu_last": False, "init_std": 0.5}
    for kind, head in HEADS.items():
        module = build_track_head({"kind": kind, **options}, jnp.float32)
        assert isinstance(module, head) and module.features == 6
        shape = jax.eval_shape(lambda x, m=module: m.init_with_output(jax.random.key(0), x)[0], ROI)
        assert shape.shape == (5, 6) and shape.dtype == jnp.float32
    assert build_track_head({"kind": "fc", **options}, jnp.float32) == TrackHead(6, False, 0.5)
