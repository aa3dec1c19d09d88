"""ResNet-18/34/50/101 (He et al. 2016)."""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from masktrack_jax.models.layers import NORMS, ConvNorm, kaiming_fan_out

# depth: (blocks of each stage, bottleneck)
DEPTHS = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
}


class Block(nn.Module):
    """Residual block: two 3×3 convolutions, or a bottleneck 1×1, 3×3, 1×1.

    The bottleneck has four times `width` output channels. Its stride is in its 3×3, as in torchvision and
    mmdet. With `stride_in_1x1` it is in its first 1×1, as in the paper and in detectron2's default.
    """

    width: int
    stride: int
    bottleneck: bool
    norm: str
    stride_in_1x1: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch _height _width _channels"]
    ) -> Float[Array, "batch _height _width _features"]:
        def conv(name: str, features: int, size: int, stride: int = 1, relu: bool = False) -> ConvNorm:
            # Exact, because rounding errors grow through the blocks.
            return ConvNorm(features, self.norm, size, stride, relu, dtype=self.dtype, exact=True, name=name)

        out = self.width * (4 if self.bottleneck else 1)
        if self.bottleneck:
            first, second = (self.stride, 1) if self.stride_in_1x1 else (1, self.stride)
            y = conv("conv1", self.width, 1, first, relu=True)(x)
            y = conv("conv2", self.width, 3, second, relu=True)(y)
            y = conv("conv3", out, 1)(y)
        else:
            y = conv("conv1", self.width, 3, self.stride, relu=True)(x)
            y = conv("conv2", out, 3)(y)
        if x.shape[-1] != out or self.stride != 1:
            x = conv("downsample", out, 1, self.stride)(x)
        return nn.relu(x + y)


class Stem(nn.Module):
    """7×7 convolution of stride 2, normalisation, ReLU, 3×3 max pooling of stride 2.

    The convolution is computed as a 4×4 of stride 1 on 2×2 blocks of pixels. The products are the same, but
    with 12 channels instead of 3, which is several times faster on all platforms. Height and width must be
    even.
    """

    features: int
    norm: str
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch height//4 width//4 {self.features}"]:
        kernel = self.param("kernel", kaiming_fan_out, (7, 7, 3, self.features))
        kernel = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0))).reshape(4, 2, 4, 2, 3, self.features)
        kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(4, 4, 12, self.features)
        b, h, w, _ = x.shape
        blocks = x.reshape(b, h // 2, 2, w // 2, 2, 3).transpose(0, 1, 3, 2, 4, 5)
        x = lax.conv_general_dilated(
            blocks.reshape(b, h // 2, w // 2, 12),
            kernel.astype(self.dtype),
            (1, 1),
            ((2, 1), (2, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return max_pool(nn.relu(NORMS[self.norm](self.dtype, name="norm")(x)))


def max_pool(
    x: Float[Array, "batch height width channels"],
) -> Float[Array, "batch height//2 width//2 channels"]:
    """3×3 max pooling of stride 2 for x ≥ 0, with zero padding of 1. Height and width must be even.

    It is computed as maxima of slices, first rows and then columns. On a CPU the gradient is several times
    faster than that of a window reduction. Equal maxima share the gradient.
    """
    x = jnp.pad(x, ((0, 0), (1, 0), (1, 0), (0, 0)))
    x = jnp.maximum(jnp.maximum(x[:, :-1:2], x[:, 1::2]), x[:, 2::2])
    return jnp.maximum(jnp.maximum(x[:, :, :-1:2], x[:, :, 1::2]), x[:, :, 2::2])


class ResNet(nn.Module):
    """Features C2–C5 (strides 4, 8, 16, 32) of normalised images.

    `frozen_stages` counts from the stem: 1 is the stem and the first stage, as in the reference. No gradient
    flows into a frozen stage, so none is computed there. `stride_in_1x1`: see `Block`. With `remat` a block
    stores only its input for the gradient and recomputes the rest.
    """

    depth: int
    width: int
    norm: str
    frozen_stages: int
    stride_in_1x1: bool
    remat: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width 3"]
    ) -> tuple[Float[Array, "batch _rows _columns _channels"], ...]:
        blocks, bottleneck = DEPTHS[self.depth]
        x = Stem(self.width, self.norm, self.dtype, name="stem")(x)
        levels = []
        for stage, count in enumerate(blocks):
            kind = nn.remat(Block) if self.remat and stage >= self.frozen_stages else Block
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"stage{stage + 1}_block{block + 1}"
                options = (stride, bottleneck, self.norm, self.stride_in_1x1, self.dtype)
                x = kind(self.width * 2**stage, *options, name=name)(x)
            if stage < self.frozen_stages:  # after every stage, since each output is also a level
                x = lax.stop_gradient(x)
            levels.append(x)
        return tuple(levels)


def frozen_names(frozen_stages: int) -> tuple[str, ...]:
    """Prefixes of the backbone's parameters that `frozen_stages` excludes from training."""
    if frozen_stages == 0:
        return ()
    return ("stem", *(f"stage{stage + 1}_" for stage in range(frozen_stages)))
