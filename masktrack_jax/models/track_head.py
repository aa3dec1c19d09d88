"""Tracking head (Yang et al. 2019, section 4): an embedding an object, compared by dot products."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

# PyTorch's default for linear layers: products start small.
linear_default = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class TrackHead(nn.Module):
    """Embeddings (M, E) float32 from RoI features (M, 7, 7, C): two fully connected layers.

    `relu_last`: mmtracking puts a ReLU after both layers, the authors between them only. With it no
    product is negative, so "new object" (logit 0) can win only through the other cues. `init_std`: of normal
    initial weights (the authors': 0.01); 0 is PyTorch's default for linear layers, mmtracking's.
    """

    features: int = 1024
    relu_last: bool = True
    init_std: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, roi):
        x = roi.reshape(roi.shape[0], -1)

        init = nn.initializers.normal(self.init_std) if self.init_std else linear_default

        def dense(name):
            return nn.Dense(self.features, dtype=self.dtype, kernel_init=init, name=name)

        x = dense("fc2")(nn.relu(dense("fc1")(x)))
        return (nn.relu(x) if self.relu_last else x).astype(jnp.float32)


def match_logits(embeddings, references):
    """Logits (…, N, M + 1) of "new object" (0) and of being each of the references.

    `embeddings` (…, N, E), `references` (…, M, E).
    """
    products = jnp.einsum("...ne,...me->...nm", embeddings, references)
    return jnp.pad(products, [(0, 0)] * (products.ndim - 1) + [(1, 0)])
