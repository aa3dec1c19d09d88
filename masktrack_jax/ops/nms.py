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
    rounds: int = 1,
    coordinates_first: bool = False,
) -> Bool[Array, " boxes"]:
    """Whether greedy NMS keeps each box. `boxes` are sorted by descending score.

    A box is suppressed if its IoU with an earlier kept box of the same group exceeds `iou_threshold`. Without
    `groups`, all boxes are one group.

    Greedy NMS is the fixpoint of the rule "keep a box if no kept earlier box suppresses it". Starting with
    all boxes kept, k rounds settle all boxes at the first k levels of the suppression order. So a few
    parallel rounds give exactly the result of the sequential algorithm. `rounds` of them run before each test
    whether all are settled, since a GPU waits for the result of the test. `coordinates_first`: see
    `pairwise_iou`.
    """
    n, valid = boxes.shape[0], jnp.asarray(valid)
    order = jnp.arange(n)
    iou = pairwise_iou(boxes, boxes, coordinates_first)
    hits = (iou > iou_threshold) & (order[:, None] > order[None]) & valid[None]
    if groups is not None:
        hits &= groups[:, None] == groups[None]

    def turn(state: tuple[Array, Array]) -> tuple[Array, Array]:
        keep, _ = state
        for _ in range(rounds):
            before, keep = keep, valid & ~jnp.any(hits & keep[None], axis=1)
        return keep, jnp.any(keep != before)

    return lax.while_loop(lambda state: state[1], turn, (valid, jnp.bool_(n > 0)))[0]
