"""Operations on boxes `x1, y1, x2, y2` in pixels, with continuous coordinates: width = x2 - x1.

In the authors' code x2 and y2 are the last pixel inside: width = x2 - x1 + 1. With 1 added to its x2 and y2,
its IoU, deltas and levels equal those below, so they need no second form. Only its clipping differs, see
`clip`.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# Limit of |log(w / w_anchor)|, so that exp() of an untrained delta stays finite. The constant is from Fast
# R-CNN and its successors.
MAX_LOG_RATIO = abs(math.log(16 / 1000))


def sizes(
    boxes: Float[Array | np.ndarray, "*boxes 4"],
) -> tuple[Float[Array | np.ndarray, "*boxes"], Float[Array | np.ndarray, "*boxes"]]:
    """Widths and heights."""
    return boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]


def pairwise_iou(
    a: Float[Array | np.ndarray, "n 4"],
    b: Float[Array | np.ndarray, "m 4"],
    coordinates_first: bool = False,
) -> Float[Array, "n m"]:
    """Intersection over union of every box of `a` with every box of `b`; 0 where both are empty.

    `coordinates_first` is the form of accelerators: as the last axis, coordinates would fill 2 of a TPU's
    128 lanes.
    """
    if coordinates_first:
        a, b, axis = a.T[:, :, None], b.T[:, None], 0
    else:
        a, b, axis = a[:, None], b[None], -1
    (low_a, high_a), (low_b, high_b) = (jnp.split(boxes, 2, axis) for boxes in (a, b))
    sides = jnp.minimum(high_a, high_b) - jnp.maximum(low_a, low_b)
    overlap = jnp.prod(jnp.maximum(sides, 0), axis)
    area_a, area_b = jnp.prod(high_a - low_a, axis), jnp.prod(high_b - low_b, axis)
    return overlap / jnp.maximum(area_a + area_b - overlap, 1e-6)


def clip(
    boxes: Float[Array | np.ndarray, "*boxes 4"],
    image_size: Int[Array | np.ndarray, "2"],
    margin: float = 0.0,
) -> Float[Array, "*boxes 4"]:
    """Boxes clipped to [0, width] × [0, height] of `image_size` = height, width.

    The upper left corner stays at least `margin` pixels from the right and lower borders, and the lower right
    corner at least `margin` pixels from the left and upper ones. `margin` 1 is the authors' form, in which
    every box contains at least one pixel of the image.
    """
    height, width = image_size[0], image_size[1]
    limit = jnp.stack([width, height, width, height]).astype(boxes.dtype)
    inward = margin * jnp.array([0, 0, 1, 1], boxes.dtype)
    return jnp.clip(boxes, inward, limit - margin + inward)


def encode(
    anchors: Float[Array | np.ndarray, "*boxes 4"],
    boxes: Float[Array | np.ndarray, "*boxes 4"],
    stds: Sequence[float],
) -> Float[Array, "*boxes 4"]:
    """Deltas `dx, dy, dw, dh` from `anchors` to `boxes`, divided by the four `stds` (Girshick et al. 2014).

    Empty anchors or boxes (padding) give finite deltas.
    """
    aw, ah = sizes(anchors)
    bw, bh = sizes(boxes)
    aw, ah, bw, bh = (jnp.maximum(side, 1e-6) for side in (aw, ah, bw, bh))
    dx = ((boxes[..., 0] + boxes[..., 2]) - (anchors[..., 0] + anchors[..., 2])) * 0.5 / aw
    dy = ((boxes[..., 1] + boxes[..., 3]) - (anchors[..., 1] + anchors[..., 3])) * 0.5 / ah
    return jnp.stack([dx, dy, jnp.log(bw / aw), jnp.log(bh / ah)], axis=-1) / jnp.asarray(stds)


def decode(
    anchors: Float[Array | np.ndarray, "*#boxes 4"],
    deltas: Float[Array | np.ndarray, "*#boxes 4"],
    stds: Sequence[float],
) -> Float[Array, "*_boxes 4"]:
    """Boxes from `anchors` and their `deltas` in units of `stds`, the inverse of `encode`. Does not clip."""
    deltas = deltas * jnp.asarray(stds)
    width, height = sizes(anchors)
    x = (anchors[..., 0] + anchors[..., 2]) * 0.5 + deltas[..., 0] * width
    y = (anchors[..., 1] + anchors[..., 3]) * 0.5 + deltas[..., 1] * height
    half_w = 0.5 * width * jnp.exp(jnp.clip(deltas[..., 2], -MAX_LOG_RATIO, MAX_LOG_RATIO))
    half_h = 0.5 * height * jnp.exp(jnp.clip(deltas[..., 3], -MAX_LOG_RATIO, MAX_LOG_RATIO))
    return jnp.stack([x - half_w, y - half_h, x + half_w, y + half_h], axis=-1)
