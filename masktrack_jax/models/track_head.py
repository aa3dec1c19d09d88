"""Tracking head (Yang et al. 2019, section 4): an embedding an object, compared by dot products."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp


class TrackHead(nn.Module):
    """Embeddings (M, E) float32 from RoI features (M, 7, 7, C): two fully connected layers.

    `relu_last`: mmtracking puts a ReLU after both layers, the authors between them only. With it no
    product is negative, so "new object" (logit 0) can win only through the other cues.
    """

    features: int = 1024
    relu_last: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, roi):
        x = roi.reshape(roi.shape[0], -1)
        x = nn.relu(nn.Dense(self.features, dtype=self.dtype, name="fc1")(x))
        x = nn.Dense(self.features, dtype=self.dtype, name="fc2")(x)
        return (nn.relu(x) if self.relu_last else x).astype(jnp.float32)


def match_logits(embeddings, references):
    """Logits (…, N, M + 1) of "new object" (0) and of being each of the references.

    `embeddings` (…, N, E), `references` (…, M, E).
    """
    products = jnp.einsum("...ne,...me->...nm", embeddings, references)
    return jnp.pad(products, [(0, 0)] * (products.ndim - 1) + [(1, 0)])
