"""Mask head (He et al. 2017): convolutions, a deconvolution, and one mask per class."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from masktrack_jax.models.layers import ConvNorm, kaiming_fan_out

BINS = 14  # bins along each side of the RoI features


class Deconv(nn.Module):
    """2×2 transposed convolution of stride 2, as one matrix product, since output tiles do not overlap."""

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "rois rows columns channels"]
    ) -> Float[Array, "rois 2*rows 2*columns {self.features}"]:
        kernel = self.param("kernel", kaiming_fan_out, (2, 2, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x, kernel, bias = (a.astype(self.dtype) for a in (x, kernel, bias))
        n, h, w, _ = x.shape
        y = jnp.einsum("nhwc,abcd->nhawbd", x, kernel)
        return y.reshape(n, 2 * h, 2 * w, self.features) + bias


class MaskHead(nn.Module):
    """Mask logits of each RoI's own class, `labels`."""

    num_classes: int
    convs: int
    channels: int
    norm: str
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, roi: Float[Array, "rois rows columns channels"], labels: Int[Array, " rois"]
    ) -> Float[Array, "rois 2*rows 2*columns"]:
        x = roi
        for i in range(self.convs):
            x = ConvNorm(self.channels, self.norm, 3, relu=True, dtype=self.dtype, name=f"conv{i + 1}")(x)
        x = nn.relu(Deconv(self.channels, self.dtype, name="deconv")(x))
        kernel = self.param("logits_kernel", kaiming_fan_out, (self.channels, self.num_classes))
        bias = self.param("logits_bias", nn.initializers.zeros, (self.num_classes,))
        # Only the mask of the RoI's own class is computed.
        x = jnp.einsum("nhwc,nc->nhw", x, kernel.T[labels].astype(self.dtype))
        return x.astype(jnp.float32) + bias[labels][:, None, None]
