"""Track heads, which compute an embedding of each RoI; `model.track_head.kind` selects one."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from masktrack_jax.models.layers import Conv

# PyTorch's default for linear layers and convolutions, with which products are small initially.
linear_default = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class TrackHead(nn.Module):
    """The paper's head (Yang et al. 2019, section 4): two fully connected layers.

    `relu_last`: whether a ReLU follows the last layer, as in mmtracking; the authors' code has none. With it
    no product is negative, so "new object" (logit 0) can win only through the other cues. `init_std`:
    standard deviation of normal initial weights (0.01 in the authors' code); 0 is PyTorch's default for
    linear layers, as in mmtracking.
    """

    features: int
    relu_last: bool
    init_std: float
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, roi: Float[Array, "rois bins bins channels"]) -> Float[Array, "rois {self.features}"]:
        x = roi.reshape(roi.shape[0], -1)

        init = nn.initializers.normal(self.init_std) if self.init_std else linear_default

        def dense(name: str) -> nn.Dense:
            return nn.Dense(self.features, dtype=self.dtype, kernel_init=init, name=name)

        x = dense("fc2")(nn.relu(dense("fc1")(x)))
        return (nn.relu(x) if self.relu_last else x).astype(jnp.float32)


class ConvTrackHead(nn.Module):
    """A plain head: a 3×3 convolution, ReLU, the mean over all positions, and a linear layer.

    It has far fewer parameters than two fully connected layers, and depends less on positions in the box.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, roi: Float[Array, "rois bins bins channels"]) -> Float[Array, "rois {self.features}"]:
        conv = Conv(self.features, 3, kernel_init=linear_default, dtype=self.dtype, name="conv")
        x = nn.relu(conv(roi)).mean((1, 2))
        x = nn.Dense(self.features, dtype=self.dtype, kernel_init=linear_default, name="fc")(x)
        return x.astype(jnp.float32)


HEADS = {"fc": TrackHead, "conv": ConvTrackHead}


def build_track_head(options: ConfigDict | Mapping[str, Any], dtype: DTypeLike) -> nn.Module:
    """Build the head of a config's `model.track_head`; `options` that its kind lacks are ignored."""
    kind = HEADS[options["kind"]]
    known = {field.name for field in fields(kind)}
    return kind(**{key: value for key, value in options.items() if key in known}, dtype=dtype)
