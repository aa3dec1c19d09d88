"""Box head: two fully connected layers, class logits and class-specific deltas; and its detections."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from masktrack_jax.models.layers import ConvNorm, xavier_uniform
from masktrack_jax.ops import boxes as box_ops
from masktrack_jax.ops.nms import nms

STDS = (0.1, 0.1, 0.2, 0.2)


class BoxHead(nn.Module):
    """Class logits (M, K + 1), background last, and deltas (M, K, 4) from RoI features (M, 7, 7, C).

    Two fully connected layers; with `convs` that many 3×3 convolutions and one such layer, which learns
    faster from scratch (Wu and He, "Group Normalization", 2018, section 4.2).
    """

    num_classes: int
    features: int = 1024
    convs: int = 0
    norm: str = "none"  # of the convolutions
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, roi):
        x = roi
        for i in range(self.convs):
            channels = roi.shape[-1]
            x = ConvNorm(channels, self.norm, 3, relu=True, dtype=self.dtype, name=f"conv{i + 1}")(x)
        x = x.reshape(roi.shape[0], -1)
        for name in ("fc1",) if self.convs else ("fc1", "fc2"):
            x = nn.relu(nn.Dense(self.features, dtype=self.dtype, kernel_init=xavier_uniform, name=name)(x))
        normal = nn.initializers.normal
        logits = nn.Dense(self.num_classes + 1, dtype=self.dtype, kernel_init=normal(0.01), name="logits")(x)
        deltas = nn.Dense(self.num_classes * 4, dtype=self.dtype, kernel_init=normal(0.001), name="deltas")(x)
        deltas = deltas.reshape(-1, self.num_classes, 4)
        return logits.astype(jnp.float32), deltas.astype(jnp.float32)


def detect(
    logits,
    deltas,
    proposals,
    valid,
    image_size,
    *,
    score_threshold,
    nms_iou,
    max_detections,
    clip_margin=0.0,
):
    """Detections of one image: boxes (D, 4), scores (D,), labels (D,), class probabilities (D, K) without the
    background's, and validity, by falling score; and how many there were () before the best D were taken.

    `logits` (N, K + 1), `deltas` (N, K, 4), `proposals` (N, 4), `valid` (N,), `image_size` (2,),
    `clip_margin` of `boxes.clip`. NMS runs within each class over all N boxes, so nothing is lost before the
    best D = `max_detections` are taken.
    """
    n, num_classes = deltas.shape[:2]
    probabilities = jax.nn.softmax(logits)[:, :-1]
    scores = probabilities.T
    boxes = box_ops.clip(box_ops.decode(proposals[:, None], deltas, STDS), image_size, clip_margin)
    boxes = boxes.transpose(1, 0, 2)
    scores = jnp.where((scores > score_threshold) & valid, scores, -1.0)

    def one_class(boxes, scores):
        scores, order = lax.top_k(scores, n)
        return order, jnp.where(nms(boxes[order], scores >= 0, nms_iou), scores, -1.0)

    order, scores = jax.vmap(one_class)(boxes, scores)
    boxes = jnp.take_along_axis(boxes, order[..., None], axis=1).reshape(-1, 4)
    best, picked = lax.top_k(scores.reshape(-1), min(max_detections, num_classes * n))
    valid = best >= 0
    labels = (picked // n).astype(jnp.int32)
    probabilities = probabilities[order.reshape(-1)[picked]]
    return boxes[picked], jnp.where(valid, best, 0.0), labels, probabilities, valid, jnp.sum(scores >= 0)
