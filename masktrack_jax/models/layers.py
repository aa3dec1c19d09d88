"""Building blocks: convolutions, normalisation, and the published initialisers. NHWC throughout."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from masktrack_jax.ops.fast_matmul import product
from masktrack_jax.ops.winograd import conv3x3

kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
xavier_uniform = nn.initializers.xavier_uniform()


def few_products(shape, dtype, kernel, strides=(1, 1)):
    """Whether the convolution of `shape` (B, H, W, C) with `kernel` (h, w, C, K) is one by `conv3x3` here."""
    batch, height, width, channels = shape
    plain = kernel[:2] == (3, 3) and strides == (1, 1) and dtype == jnp.float32
    large = batch * height * width >= 512 and min(channels, kernel[-1]) >= 64
    return plain and large and jax.default_backend() == "cpu"


def convolve(x, kernel, strides, padding, exact=False, **options):
    """`lax.conv_general_dilated`; on a CPU with half the multiplications where that pays.

    Other machines' libraries choose such forms themselves. `exact`: see `winograd.conv3x3`.
    """
    if few_products(x.shape, x.dtype, kernel.shape, strides):
        return conv3x3(x, kernel, exact)
    return lax.conv_general_dilated(x, kernel, strides, padding, **options)


def multiply(x, kernel, dimension_numbers, **options):
    """`lax.dot_general` of x (…, C) and a kernel (C, K); on a CPU with `product`'s gradient."""
    if jax.default_backend() == "cpu":
        return product(x, kernel)
    return lax.dot_general(x, kernel, dimension_numbers, **options)


class Conv(nn.Module):
    """Convolution `size` × `size` with zero padding of half the size on every side (PyTorch's).

    A 1×1 is written as a matrix product: the same numbers, and on CPU its gradient is several times
    faster than that of a convolution. `exact`: no form with more rounding than the plain sum's.
    """

    features: int
    size: int = 3
    stride: int = 1
    use_bias: bool = True
    kernel_init: Any = kaiming_fan_out
    dtype: Any = jnp.float32
    exact: bool = False

    @nn.compact
    def __call__(self, x):
        if self.size == 1:
            x = x[:, :: self.stride, :: self.stride]
            return nn.Dense(
                self.features,
                self.use_bias,
                self.dtype,
                kernel_init=self.kernel_init,
                dot_general=multiply,
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
            conv_general_dilated=partial(convolve, exact=self.exact),
            name="conv",
        )(x)


class FrozenBatchNorm(nn.Module):
    """Batch norm in evaluation mode: fixed statistics, trainable scale and bias (epsilon 1e-5)."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels).value
        var = self.variable("batch_stats", "var", jnp.ones, channels).value
        factor = scale / jnp.sqrt(var + 1e-5)
        return x * factor.astype(self.dtype) + (bias - mean * factor).astype(self.dtype)


class GroupNorm(nn.Module):
    """Group norm over 32 groups, or groups of 8 channels where there are fewer than 256 channels."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):
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
    """Convolution, normalisation by name ("none": a bias instead), and ReLU if asked."""

    features: int
    norm: str
    size: int = 3
    stride: int = 1
    relu: bool = False
    kernel_init: Any = kaiming_fan_out
    dtype: Any = jnp.float32
    exact: bool = False  # see Conv

    @nn.compact
    def __call__(self, x):
        normed = self.norm != "none"
        options = (self.stride, not normed, self.kernel_init, self.dtype, self.exact)
        x = Conv(self.features, self.size, *options, name="conv")(x)
        if normed:
            x = NORMS[self.norm](self.dtype, name="norm")(x)
        return nn.relu(x) if self.relu else x
