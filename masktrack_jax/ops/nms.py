"""Exact greedy non-maximum suppression on fixed-size arrays."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from masktrack_jax.ops.boxes import pairwise_iou


def nms(
    boxes: Float[Array | np.ndarray, "boxes 4"],
    valid: Bool[Array | np.ndarray, " boxes"],
    iou_threshold: float | Float[Array, ""],
    groups: Int[Array | np.ndarray, " boxes"] | None = None,
) -> Bool[Array, " boxes"]:
    """Which boxes greedy NMS keeps. `boxes` are sorted by falling score.

    A box goes when an earlier kept box of the same group (all are one group without `groups`) overlaps it by
    more than `iou_threshold`.

    Greedy NMS is the fixpoint of "a box stays if no kept earlier box hits it". Iterating from "all
    stay" settles the k-th layer of the order of suppression after k rounds. A handful of parallel rounds
    gives exactly the result of the sequential algorithm.
    """
    n, valid = boxes.shape[0], jnp.asarray(valid)
    order = jnp.arange(n)
    hits = (pairwise_iou(boxes, boxes) > iou_threshold) & (order[:, None] > order[None]) & valid[None]
    if groups is not None:
        hits &= groups[:, None] == groups[None]

    def round_(state: tuple[Array, Array]) -> tuple[Array, Array]:
        keep, _ = state
        new = valid & ~jnp.any(hits & keep[None], axis=1)
        return new, jnp.any(new != keep)

    return lax.while_loop(lambda state: state[1], round_, (valid, jnp.bool_(n > 0)))[0]
