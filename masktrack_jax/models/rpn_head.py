"""Region proposal network (Ren et al. 2015): its head and its proposals."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from masktrack_jax.models.layers import Conv
from masktrack_jax.ops import boxes as box_ops
from masktrack_jax.ops.nms import nms

STDS = (1.0, 1.0, 1.0, 1.0)
normal_001 = nn.initializers.normal(0.01)


class RPNHead(nn.Module):
    """Objectness logits (B, A) and box deltas (B, A, 4), anchors ordered (level, y, x, of the cell)."""

    channels: int
    per_cell: int = 3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features):
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


def propose(
    logits, deltas, anchors, levels, anchor_valid, image_size, *, pre_nms, post_nms, nms_iou, clip_margin=0.0
):
    """Proposals of one image: boxes (post_nms, 4) by falling score and their validity.

    `logits` (A,), `deltas` (A, 4), `anchors` (A, 4) and `levels` (A,) NumPy constants, `anchor_valid` (A,),
    `image_size` (2,), `clip_margin` of `boxes.clip`. Of each level the best `pre_nms` are decoded, clipped to
    the image and suppressed among themselves; the best `post_nms` of all levels remain.
    """
    scores = jnp.where(anchor_valid, jax.nn.sigmoid(logits), -1.0)
    all_boxes, all_scores = [], []
    for level in range(int(levels.max()) + 1):
        inside = np.flatnonzero(levels == level)  # a constant, and contiguous
        best, picked = lax.top_k(scores[inside[0] : inside[-1] + 1], min(pre_nms, len(inside)))
        picked += inside[0]
        boxes = box_ops.decode(jnp.asarray(anchors)[picked], deltas[picked], STDS)
        boxes = box_ops.clip(boxes, image_size, clip_margin)
        width, height = box_ops.sizes(boxes)
        keep = nms(boxes, (best >= 0) & (width > 0) & (height > 0), nms_iou)
        all_boxes.append(boxes)
        all_scores.append(jnp.where(keep, best, -1.0))
    boxes, scores = jnp.concatenate(all_boxes), jnp.concatenate(all_scores)
    scores, order = lax.top_k(scores, min(post_nms, len(scores)))
    return boxes[order], scores >= 0
