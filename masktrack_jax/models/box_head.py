"""Box head: two fully connected layers, class logits and class-specific deltas; and its detections."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from masktrack_jax.models.layers import ConvNorm, xavier_uniform
from masktrack_jax.ops import boxes as box_ops
from masktrack_jax.ops.nms import nms

STDS = (0.1, 0.1, 0.2, 0.2)
FIRST = 1024  # boxes of all classes that NMS looks at first


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
    image_sizes,
    *,
    score_threshold,
    nms_iou,
    max_detections,
    clip_margin=0.0,
):
    """Detections of a batch: boxes (B, D, 4), scores (B, D), labels (B, D), class probabilities (B, D, K)
    without the background's, and validity, by falling score; and whether there were more (B,) before the best
    D were taken.

    `logits` (B, N, K + 1), `deltas` (B, N, K, 4), `proposals` (B, N, 4), `valid` (B, N), `image_sizes`
    (B, 2), `clip_margin` of `boxes.clip`. NMS runs within each class over all N boxes, so nothing is lost
    before the best D = `max_detections` are taken.
    """
    n, num_classes = deltas.shape[1:3]
    probabilities = jax.nn.softmax(logits)[..., :-1]
    decoded = box_ops.decode(proposals[:, :, None], deltas, STDS)
    boxes = jax.vmap(partial(box_ops.clip, margin=clip_margin))(decoded, image_sizes).swapaxes(1, 2)
    exist = (probabilities > score_threshold) & valid[..., None]
    scores = jnp.where(exist, probabilities, -1.0).swapaxes(1, 2)
    scores, places, cut = best_of_classes(boxes, scores, nms_iou, min(max_detections, num_classes * n))
    valid = scores >= 0
    take = jax.vmap(lambda array, places: array[places])
    boxes = take(boxes.reshape(len(boxes), -1, 4), places)
    labels = (places // n).astype(jnp.int32)
    return boxes, jnp.where(valid, scores, 0.0), labels, take(probabilities, places % n), valid, cut


def best_of_classes(boxes, scores, nms_iou, count):
    """Scores (B, D) and places (B, D) in K·N of the best D = `count` that NMS within each class leaves of
    boxes (B, K, N, 4) with scores (B, K, N), -1 where there is none; and whether it leaves more (B,).

    NMS looks at the best FIRST of all classes of an image, since the fate of a box does not depend on worse
    ones, and only where these are not enough at the others.
    """
    n, total = scores.shape[-1], scores[0].size
    first = min(total, max(FIRST, count))

    def best(scores, places, kept):
        scores, picked = lax.top_k(jnp.where(kept, scores, -1.0), count)
        return scores, places[picked], jnp.sum(kept) > count

    def of_first(boxes, scores):
        scores, places = lax.top_k(scores.reshape(-1), first)
        return best(scores, places, nms(boxes.reshape(-1, 4)[places], scores >= 0, nms_iou, places // n))

    def of_class(boxes, scores):
        scores, order = lax.top_k(scores, n)
        return scores, order, nms(boxes[order], scores >= 0, nms_iou)

    def of_all(boxes, scores):
        scores, order, kept = jax.vmap(of_class)(boxes, scores)
        places = order + n * jnp.arange(len(scores), dtype=order.dtype)[:, None]
        return best(*(x.reshape(-1) for x in (scores, places, kept)))

    found = jax.vmap(of_first)(boxes, scores)
    if first == total:
        return found
    enough = found[2] | (jnp.sum(scores >= 0, axis=(1, 2)) <= first)
    return lax.cond(jnp.all(enough), lambda: found, lambda: jax.vmap(of_all)(boxes, scores))
