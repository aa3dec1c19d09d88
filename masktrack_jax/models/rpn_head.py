"""Region proposal network (Ren et al. 2015): the head, and the selection of proposals."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from masktrack_jax.models.layers import Conv
from masktrack_jax.ops import boxes as box_ops
from masktrack_jax.ops.anchors import Anchors
from masktrack_jax.ops.nms import nms

STDS = (1.0, 1.0, 1.0, 1.0)
normal_001 = nn.initializers.normal(0.01)


class RPNHead(nn.Module):
    """Objectness logits and box deltas of all anchors, ordered as in `Anchors`."""

    channels: int
    per_cell: int  # anchors per cell
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, features: Sequence[Float[Array, "batch _rows _columns channels"]]
    ) -> tuple[Float[Array, "batch anchors"], Float[Array, "batch anchors 4"]]:
        conv = Conv(self.channels, 3, kernel_init=normal_001, dtype=self.dtype, name="conv")
        logits = Conv(self.per_cell, 1, kernel_init=normal_001, dtype=self.dtype, name="logits")
        deltas = Conv(self.per_cell * 4, 1, kernel_init=normal_001, dtype=self.dtype, name="deltas")
        hidden = [nn.relu(conv(x)) for x in features]
        batch = features[0].shape[0]
        all_logits = [logits(x).reshape(batch, -1) for x in hidden]
        all_deltas = [deltas(x).reshape(batch, -1, 4) for x in hidden]
        return (
            jnp.concatenate(all_logits, axis=1).astype(jnp.float32),
            jnp.concatenate(all_deltas, axis=1).astype(jnp.float32),
        )


def select_proposals(
    logits: Float[Array, " anchors"],
    deltas: Float[Array, "anchors 4"],
    anchors: Anchors,
    anchor_valid: Bool[Array | np.ndarray, " anchors"],
    image_size: Int[Array | np.ndarray, "2"],
    *,
    pre_nms: int,
    post_nms: int,
    nms_iou: float,
    clip_margin: float,
) -> tuple[Float[Array, "proposals 4"], Bool[Array, " proposals"]]:
    """Proposals of one image by descending score, and their validity.

    The best `pre_nms` boxes of each level are decoded, clipped to the image (by `clip_margin`, see
    `boxes.clip`) and filtered by NMS within the level. The best `post_nms` of all levels remain.
    """
    levels = anchors.levels
    scores = jnp.where(anchor_valid, jax.nn.sigmoid(logits), -1.0)
    all_boxes, all_scores = [], []
    for level in range(int(levels.max()) + 1):
        inside = np.flatnonzero(levels == level)  # a constant, and contiguous
        best, picked = lax.top_k(scores[inside[0] : inside[-1] + 1], min(pre_nms, len(inside)))
        picked += inside[0]
        boxes = box_ops.decode(jnp.asarray(anchors.boxes)[picked], deltas[picked], STDS)
        boxes = box_ops.clip(boxes, image_size, clip_margin)
        width, height = box_ops.sizes(boxes)
        keep = nms(boxes, (best >= 0) & (width > 0) & (height > 0), nms_iou)
        all_boxes.append(boxes)
        all_scores.append(jnp.where(keep, best, -1.0))
    boxes, scores = jnp.concatenate(all_boxes), jnp.concatenate(all_scores)
    scores, order = lax.top_k(scores, min(post_nms, len(scores)))
    return boxes[order], scores >= 0
