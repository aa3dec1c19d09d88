"""Exact greedy non-maximum suppression on fixed-size arrays."""

import jax.numpy as jnp
from jax import lax

from masktrack_jax.ops.boxes import pairwise_iou


def nms(boxes, valid, iou_threshold, groups=None):
    """Which boxes greedy NMS keeps, (N,) bool.

    `boxes` (N, 4) are sorted by falling score; `valid` (N,) marks those that exist. A box goes when an
    earlier kept box of the same group (`groups` (N,) int, or all one group) overlaps it by more than
    `iou_threshold`.

    Greedy NMS is the fixpoint of "a box stays if no kept earlier box hits it". Iterating from "all
    stay" settles the k-th layer of the order of suppression after k rounds, so a handful of parallel
    rounds gives exactly the answer of the N sequential ones.
    """
    n = boxes.shape[0]
    order = jnp.arange(n)
    hits = (pairwise_iou(boxes, boxes) > iou_threshold) & (order[:, None] > order[None]) & valid[None]
    if groups is not None:
        hits &= groups[:, None] == groups[None]

    def round_(state):
        keep, _ = state
        new = valid & ~jnp.any(hits & keep[None], axis=1)
        return new, jnp.any(new != keep)

    return lax.while_loop(lambda state: state[1], round_, (valid, jnp.bool_(n > 0)))[0]
