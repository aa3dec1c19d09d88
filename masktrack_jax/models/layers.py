"""Building blocks: convolutions, normalisation, and the published initialisers. NHWC throughout."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from masktrack_jax.models.forms import convolve, forms, multiply

kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
xavier_uniform = nn.initializers.xavier_uniform()


class Conv(nn.Module):
    """Convolution `size` × `size` with zero padding of half the size on every side, as in PyTorch.

    A 1×1 convolution is computed as a matrix product, with the same result and on a CPU a gradient several
    times faster. `exact` excludes forms with more rounding than the plain sum. `factor` multiplies the
    channels of the result.
    """

    features: int
    size: int = 3
    stride: int = 1
    use_bias: bool = True
    kernel_init: Initializer = kaiming_fan_out
    dtype: DTypeLike = jnp.float32
    exact: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch _height _width _channels"],
        factor: Float[Array, " _features"] | None = None,
    ) -> Float[Array, "batch _height _width {self.features}"]:
        if self.size == 1:
            x = x[:, :: self.stride, :: self.stride]
            return nn.Dense(
                self.features,
                self.use_bias,
                self.dtype,
                kernel_init=self.kernel_init,
                dot_general=partial(multiply, factor=factor),
                name="conv",
            )(x)
        half = self.size // 2
        return nn.Conv(
            self.features,
            (self.size, self.size),
            (self.stride, self.stride),
            padding=((half, half), (half, half)),
            use_bias=self.use_bias,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            conv_general_dilated=partial(convolve, exact=self.exact, factor=factor),
            name="conv",
        )(x)


class FrozenBatchNorm(nn.Module):
    """Batch norm in evaluation mode: fixed statistics, trainable scale and bias (epsilon 1e-5)."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def affine(self, channels: int) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
        """The factor and the shift of each channel; float32."""
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,)).value
        var = self.variable("batch_stats", "var", jnp.ones, (channels,)).value
        factor = scale / jnp.sqrt(var + 1e-5)
        return factor, bias - mean * factor

    def __call__(self, x: Float[Array, "*rows channels"]) -> Float[Array, "*rows channels"]:
        factor, shift = self.affine(x.shape[-1])
        return x * factor.astype(self.dtype) + shift.astype(self.dtype)


class GroupNorm(nn.Module):
    """Group norm with 32 groups, or with groups of 8 channels if there are fewer than 256 channels."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch *places channels"]) -> Float[Array, "batch *places channels"]:
        channels = x.shape[-1]
        groups = min(32, max(channels // 8, 1))
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        # Moments of the channels first, then of the groups: one pass over x in its own layout.
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        spatial = tuple(range(1, x.ndim - 1))
        shape = (x.shape[0], groups, channels // groups)
        mean = jnp.mean(wide, spatial).reshape(shape).mean(-1, keepdims=True)
        square = jnp.mean(wide * wide, spatial).reshape(shape).mean(-1, keepdims=True)
        inverse = 1 / jnp.sqrt(jnp.maximum(square - mean * mean, 0) + 1e-5)
        factor = jnp.broadcast_to(inverse, shape).reshape(x.shape[0], channels) * scale
        shift = bias - jnp.broadcast_to(mean, shape).reshape(x.shape[0], channels) * factor
        expand = (x.shape[0],) + (1,) * len(spatial) + (channels,)
        return (wide * factor.reshape(expand) + shift.reshape(expand)).astype(self.dtype)


NORMS = {"frozen_bn": FrozenBatchNorm, "group": GroupNorm}


class ConvNorm(nn.Module):
    """Convolution, normalisation by name ("none": a bias instead), and optional ReLU."""

    features: int
    norm: str
    size: int = 3
    stride: int = 1
    relu: bool = False
    kernel_init: Initializer = kaiming_fan_out
    dtype: DTypeLike = jnp.float32
    exact: bool = False  # see Conv

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch _height _width _channels"]
    ) -> Float[Array, "batch _height _width {self.features}"]:
        normed = self.norm != "none"
        options = (self.stride, not normed, self.kernel_init, self.dtype, self.exact)
        conv = Conv(self.features, self.size, *options, name="conv")
        if self.norm == "frozen_bn" and forms().norm_in_kernel:
            factor, shift = FrozenBatchNorm(self.dtype, name="norm").affine(self.features)
            x = conv(x, factor) + shift.astype(self.dtype)
            return nn.relu(x) if self.relu else x
        x = conv(x)
        if normed:
            x = NORMS[self.norm](self.dtype, name="norm")(x)
        return nn.relu(x) if self.relu else x
