"""Every head has float32 parameters and outputs, for all types of computation, but the RPN's deltas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masktrack_jax.models.box_head import BoxHead
from masktrack_jax.models.mask_head import MaskHead
from masktrack_jax.models.rpn_head import RPNHead
from masktrack_jax.models.track_head import ConvTrackHead, TrackHead
from tests.helpers.networks import apply, randomised, shapes_of


@pytest.mark.parametrize(
    "make, arrays",
    [
        (lambda dtype: BoxHead(3, 16, 0, "none", dtype=dtype), ((4, 7, 7, 8),)),
        (lambda dtype: TrackHead(16, True, 0.0, dtype=dtype), ((4, 7, 7, 8),)),
        (lambda dtype: ConvTrackHead(16, dtype=dtype), ((4, 7, 7, 8),)),
        (lambda dtype: MaskHead(3, 1, 8, "none", dtype=dtype), ((4, 14, 14, 8), np.arange(4) % 3)),
        (lambda dtype: RPNHead(8, 3, dtype=dtype), (((1, 8, 8, 8), (1, 4, 4, 8)),)),
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
    exact, rough = (jax.tree.leaves(apply(make(d), variables, *arrays)) for d in (jnp.float32, jnp.bfloat16))
    for a, b in zip(exact, rough, strict=True):
        assert b.dtype == (jnp.bfloat16 if b.shape[-1:] == (12,) else jnp.float32)  # `deltas_at` converts
        b = b.astype(jnp.float32)
        assert 0 < np.linalg.norm(a - b) / np.linalg.norm(a) < 0.03
