"""Feature pyramid network (Lin et al. 2017): P2–P5 and a subsampled P6."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from masktrack_jax.models.forms import are_many, forms
from masktrack_jax.models.layers import ConvNorm, xavier_uniform


def upsample(x: Float[Array, "batch h w channels"]) -> Float[Array, "batch 2*h 2*w channels"]:
    """Nearest-neighbour upsampling to twice the size."""
    b, h, w, c = x.shape
    if are_many(b):
        # Each sum has one term, so it is exact.
        return lax.conv_general_dilated(
            x,
            jnp.ones((2, 2, 1, c), x.dtype),
            (1, 1),
            ((1, 1), (1, 1)),
            lhs_dilation=(2, 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=c,
            precision=lax.Precision.HIGHEST,
        )
    if forms().upsample_as_product:
        twice = jnp.repeat(jnp.eye(w, dtype=x.dtype), 2, axis=0)
        wide = jnp.einsum("bhwc,vw->bhvc", x, twice, precision=lax.Precision.HIGHEST)  # exact, too
        return jnp.broadcast_to(wide[:, :, None], (b, h, 2, 2 * w, c)).reshape(b, 2 * h, 2 * w, c)
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


class FPN(nn.Module):
    """Levels P2–P6 from C2–C5."""

    channels: int
    norm: str
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, features: Sequence[Float[Array, "batch _rows _columns _channels"]]
    ) -> tuple[Float[Array, "batch _rows _columns {self.channels}"], ...]:
        def conv(name: str, size: int) -> ConvNorm:
            return ConvNorm(
                self.channels, self.norm, size, kernel_init=xavier_uniform, dtype=self.dtype, name=name
            )

        laterals = [conv(f"lateral{i + 2}", 1)(c) for i, c in enumerate(features)]
        for i in range(len(laterals) - 1, 0, -1):
            laterals[i - 1] += upsample(laterals[i])
        levels = [conv(f"output{i + 2}", 3)(x) for i, x in enumerate(laterals)]
        return (*levels, levels[-1][:, ::2, ::2])
