"""ResNet-18/34/50/101 (He et al. 2016)."""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from masktrack_jax.models.forms import forms
from masktrack_jax.models.layers import NORMS, ConvNorm, FrozenBatchNorm, kaiming_fan_out

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

    The convolution is computed as one of stride 1 on blocks of pixels. The products are the same, but with
    more channels than 3, which is several times faster on all platforms. Heights and widths must be multiples
    of 4.
    """

    features: int
    norm: str
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch height//4 width//4 {self.features}"]:
        kernel = self.param("kernel", kaiming_fan_out, (7, 7, 3, self.features))
        norm = NORMS[self.norm](self.dtype, name="norm")
        if isinstance(norm, FrozenBatchNorm) and forms().stem_blocks == 4:
            factor, shift = norm.affine(self.features)
            return large_block_stem(x, kernel * factor, shift.astype(self.dtype))
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
        return max_pool(nn.relu(norm(x)))


def large_block_stem(
    x: Float[Array, "batch height width 3"],
    kernel: Float[Array, "7 7 3 features"],
    bias: Float[Array, " features"],
) -> Float[Array, "batch height//4 width//4 features"]:
    """The stem on 4×4 blocks of pixels, which are the cells of its result.

    A block has 2×2 results of the convolution, side by side as channels. So no array has few channels, which
    would fill a small part of a TPU's lanes, and the pooling needs no strides.
    """
    blocks = blocks_of_4(x)

    def convolved(row: int) -> Float[Array, "batch rows columns _channels"]:
        """Both results in the first or second `row` of each block."""
        part = jnp.pad(kernel, ((1 + 2 * row, 2 * row), (0, 0), (0, 0), (0, 0)))
        ends = ((1, 4), (3, 2))  # of the kernel's columns, for both columns of results
        part = jnp.concatenate([jnp.pad(part, ((0, 0), end, (0, 0), (0, 0))) for end in ends], axis=-1)
        part = part.reshape(2 + row, 4, 3, 4, 3, -1).transpose(0, 2, 1, 3, 4, 5)
        y = lax.conv_general_dilated(
            blocks,
            part.reshape(2 + row, 3, 48, -1).astype(x.dtype),
            (1, 1),
            ((1, row), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return nn.relu(y + jnp.tile(bias, 2))

    def before(x: Array, axis: int) -> Array:
        """The previous row or column of each, and zeros before the first."""
        ends = [(int(i == axis), 0) for i in range(x.ndim)]
        return lax.slice_in_dim(jnp.pad(x, ends), 0, x.shape[axis], axis=axis)

    first, second = convolved(0), convolved(1)
    rows = jnp.maximum(jnp.maximum(before(second, 1), first), second)
    first, second = jnp.split(rows, 2, axis=-1)
    return jnp.maximum(jnp.maximum(before(second, 2), first), second)


def blocks_of_4(
    x: Float[Array, "batch height width channels"],
) -> Float[Array, "batch height//4 width//4 16*channels"]:
    """Blocks of 4×4 pixels as channels, ordered (row, column, channel).

    Computed as two products with permutations, which are exact, because a TPU takes every fourth element of
    an axis slowly.
    """
    b, h, w, _ = x.shape
    rows, columns = (jnp.eye(n, dtype=x.dtype).reshape(-1, 4, n) for n in (h, w))
    exact = lax.Precision.HIGHEST
    x = jnp.einsum("bhwc,jxw->bchxj", x, columns, precision=exact)
    x = jnp.einsum("bchxj,iyh->bijyxc", x, rows, precision=exact)
    return x.reshape(b, h // 4, w // 4, -1)


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
