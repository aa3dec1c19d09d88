"""Box head (two fully connected layers, class logits, class-specific deltas), and selection of detections."""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from masktrack_jax.models.forms import forms
from masktrack_jax.models.layers import ConvNorm, xavier_uniform
from masktrack_jax.ops import boxes as box_ops
from masktrack_jax.ops.nms import nms

STDS = (0.1, 0.1, 0.2, 0.2)
BINS = 7  # bins along each side of the RoI features
FIRST = 1024  # boxes of all classes that NMS processes first


class BoxHead(nn.Module):
    """Class logits, background last, and deltas of every class.

    It has two fully connected layers. With `convs` > 0, it has that many 3×3 convolutions and one fully
    connected layer, which learns faster from scratch (Wu and He, "Group Normalization", 2018, section 4.2).
    """

    num_classes: int
    features: int
    convs: int
    norm: str  # normalisation of the convolutions
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, roi: Float[Array, "rois bins bins channels"]
    ) -> tuple[Float[Array, "rois {self.num_classes}+1"], Float[Array, "rois {self.num_classes} 4"]]:
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


class SelectedDetections(NamedTuple):
    """Padded detections of a batch, by descending score, without masks and embeddings."""

    boxes: Float[Array, "batch detections 4"]
    scores: Float[Array, "batch detections"]
    labels: Int[Array, "batch detections"]
    probabilities: Float[Array, "batch detections classes"]  # without the background
    valid: Bool[Array, "batch detections"]
    cut: Bool[Array, " batch"]  # whether these are only the best of more detections


def select_detections(
    logits: Float[Array, "batch boxes logits"],
    deltas: Float[Array, "batch boxes classes 4"],
    proposals: Float[Array, "batch boxes 4"],
    valid: Bool[Array, "batch boxes"],
    image_sizes: Int[Array | np.ndarray, "batch 2"],
    *,
    score_threshold: float,
    nms_iou: float,
    max_detections: int,
    clip_margin: float,
) -> SelectedDetections:
    """The best `max_detections` of each image.

    NMS runs within each class over all boxes, so no detection is lost before the best are selected.
    `clip_margin`: see `boxes.clip`.
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
    scores = jnp.where(valid, scores, 0.0)
    return SelectedDetections(boxes, scores, labels, take(probabilities, places % n), valid, cut)


class Best(NamedTuple):
    """The best boxes of an image; with a leading axis, of a batch."""

    scores: Float[Array, "*batch detections"]  # -1 for padding
    places: Int[Array, "*batch detections"]  # indices into the flat (classes · boxes)
    cut: Bool[Array, "*batch"]  # whether there were more


def best_of_classes(
    boxes: Float[Array, "batch classes boxes 4"],
    scores: Float[Array, "batch classes boxes"],
    nms_iou: float,
    count: int,
) -> Best:
    """The best `count` boxes after NMS within each class. Scores of absent boxes are -1.

    NMS first processes only the best FIRST boxes of all classes of an image, since boxes with lower scores
    cannot suppress them. It processes all boxes only if these are not enough.
    """
    n, total = scores.shape[-1], scores[0].size
    form = forms()
    suppress = partial(nms, rounds=form.nms_rounds, coordinates_first=form.coordinates_first)
    first = min(total, max(FIRST, count))

    def best(scores: Array, places: Array, kept: Array) -> Best:
        scores, picked = lax.top_k(jnp.where(kept, scores, -1.0), count)
        return Best(scores, places[picked], jnp.sum(kept) > count)

    def of_first(boxes: Float[Array, "classes boxes 4"], scores: Float[Array, "classes boxes"]) -> Best:
        scores, places = lax.top_k(scores.reshape(-1), first)
        kept = suppress(boxes.reshape(-1, 4)[places], scores >= 0, nms_iou, places // n)
        return best(scores, places, kept)

    def of_class(
        boxes: Float[Array, "boxes 4"], scores: Float[Array, " boxes"]
    ) -> tuple[Array, Array, Array]:
        scores, order = lax.top_k(scores, n)
        return scores, order, suppress(boxes[order], scores >= 0, nms_iou)

    def of_all(boxes: Float[Array, "classes boxes 4"], scores: Float[Array, "classes boxes"]) -> Best:
        scores, order, kept = jax.vmap(of_class)(boxes, scores)
        places = order + n * jnp.arange(len(scores), dtype=order.dtype)[:, None]
        return best(*(x.reshape(-1) for x in (scores, places, kept)))

    found = jax.vmap(of_first)(boxes, scores)
    if first == total:
        return found
    enough = found.cut | (jnp.sum(scores >= 0, axis=(1, 2)) <= first)
    return lax.cond(jnp.all(enough), lambda: found, lambda: jax.vmap(of_all)(boxes, scores))
