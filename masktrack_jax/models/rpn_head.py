"""Region proposal network (Ren et al. 2015): the head, and the selection of proposals."""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from masktrack_jax.models.forms import forms
from masktrack_jax.models.layers import Conv
from masktrack_jax.ops import boxes as box_ops
from masktrack_jax.ops.anchors import Anchors
from masktrack_jax.ops.nms import nms

STDS = (1.0, 1.0, 1.0, 1.0)
normal_001 = nn.initializers.normal(0.01)


class RPNHead(nn.Module):
    """Objectness logits of all anchors and box deltas of all cells, ordered as in `Anchors`.

    `deltas_at` returns the deltas of some anchors. All of them, with a last axis of 4, would take 32 times
    their size on a TPU.
    """

    channels: int
    per_cell: int  # anchors per cell
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, features: Sequence[Float[Array, "batch _rows _columns channels"]]
    ) -> tuple[Float[Array, "batch anchors"], Float[Array, "batch cells 4*{self.per_cell}"]]:
        conv = Conv(self.channels, 3, kernel_init=normal_001, dtype=self.dtype, name="conv")
        logits = Conv(self.per_cell, 1, kernel_init=normal_001, dtype=self.dtype, name="logits")
        deltas = Conv(self.per_cell * 4, 1, kernel_init=normal_001, dtype=self.dtype, name="deltas")
        hidden = [nn.relu(conv(x)) for x in features]
        batch = features[0].shape[0]
        all_logits = [logits(x).reshape(batch, -1) for x in hidden]
        all_deltas = [deltas(x).reshape(batch, -1, 4 * self.per_cell) for x in hidden]
        return jnp.concatenate(all_logits, axis=1).astype(jnp.float32), jnp.concatenate(all_deltas, axis=1)


def deltas_at(
    deltas: Float[Array, "cells deltas"], anchors: Int[Array, "*anchors"]
) -> Float[Array, "*anchors 4"]:
    """The deltas of the `anchors` of an image, from those of all cells, as float32."""
    per_cell = deltas.shape[-1] // 4
    of_cells = deltas[anchors // per_cell].reshape(*anchors.shape, per_cell, 4).astype(jnp.float32)
    return jnp.take_along_axis(of_cells, (anchors % per_cell)[..., None, None], axis=-2)[..., 0, :]


def select_proposals(
    logits: Float[Array, " anchors"],
    deltas: Float[Array, "cells deltas"],
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
    scores = jnp.where(anchor_valid, jax.nn.sigmoid(logits), -1.0)
    counts = np.bincount(anchors.levels)
    first = np.cumsum(counts) - counts
    candidates = np.minimum(counts, pre_nms).tolist()
    most = max(candidates)
    best, rows = [], []
    for start, count, wanted in zip(first.tolist(), counts.tolist(), candidates):
        found, picked = lax.top_k(scores[start : start + count], wanted)
        missing = (0, most - wanted)
        best.append(jnp.pad(found, missing, constant_values=-1.0))
        rows.append(jnp.pad(picked + start, missing))
    scores, places = jnp.stack(best), jnp.stack(rows)
    boxes = box_ops.decode(jnp.asarray(anchors.boxes)[places], deltas_at(deltas, places), STDS)
    boxes = box_ops.clip(boxes, image_size, clip_margin)
    width, height = box_ops.sizes(boxes)
    exist = (scores >= 0) & (width > 0) & (height > 0)
    form = forms()
    suppress = partial(
        nms, iou_threshold=nms_iou, rounds=form.nms_rounds, coordinates_first=form.coordinates_first
    )
    if form.nms_rounds > 1:
        keep = jax.vmap(suppress)(boxes, exist)  # one loop for all levels
    else:
        levels = zip(boxes, exist, candidates)
        keep = jnp.stack([jnp.pad(suppress(b[:n], e[:n]), (0, most - n)) for b, e, n in levels])
    scores = jnp.where(keep, scores, -1.0).reshape(-1)
    scores, order = lax.top_k(scores, min(post_nms, sum(candidates)))
    return boxes.reshape(-1, 4)[order], scores >= 0
