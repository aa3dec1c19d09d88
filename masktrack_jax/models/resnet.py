"""ResNet-18/34/50/101 (He et al. 2016), bottleneck stride in the 3×3 as in torchvision and mmdet."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from masktrack_jax.models.layers import ConvNorm

# depth: (blocks of each stage, bottleneck)
DEPTHS = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
}


class Block(nn.Module):
    """Residual block: two 3×3, or a bottleneck 1×1, 3×3, 1×1 with four times `width` channels out."""

    width: int
    stride: int
    bottleneck: bool
    norm: str
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):
        def conv(name, features, size, stride=1, relu=False):
            return ConvNorm(features, self.norm, size, stride, relu, dtype=self.dtype, name=name)

        out = self.width * (4 if self.bottleneck else 1)
        if self.bottleneck:
            y = conv("conv1", self.width, 1, relu=True)(x)
            y = conv("conv2", self.width, 3, self.stride, relu=True)(y)
            y = conv("conv3", out, 1)(y)
        else:
            y = conv("conv1", self.width, 3, self.stride, relu=True)(x)
            y = conv("conv2", out, 3)(y)
        if x.shape[-1] != out or self.stride != 1:
            x = conv("downsample", out, 1, self.stride)(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Features C2–C5 (strides 4, 8, 16, 32) of normalised images (B, H, W, 3).

    `frozen_stages` counts from the stem: 1 is the stem and the first stage, as in the reference. Nothing
    flows back into a frozen stage, so its gradient is not computed either.
    """

    depth: int
    width: int = 64
    norm: str = "frozen_bn"
    frozen_stages: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):
        blocks, bottleneck = DEPTHS[self.depth]
        x = ConvNorm(self.width, self.norm, 7, 2, relu=True, dtype=self.dtype, name="stem")(x)
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        levels = []
        for stage, count in enumerate(blocks):
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"stage{stage + 1}_block{block + 1}"
                x = Block(self.width * 2**stage, stride, bottleneck, self.norm, self.dtype, name=name)(x)
            if stage + 1 == self.frozen_stages:
                x = lax.stop_gradient(x)
            levels.append(x)
        return tuple(levels)


def frozen_names(frozen_stages):
    """Prefixes of the backbone's parameters that `frozen_stages` keeps from training."""
    if frozen_stages == 0:
        return ()
    return ("stem", *(f"stage{stage + 1}_" for stage in range(frozen_stages)))
