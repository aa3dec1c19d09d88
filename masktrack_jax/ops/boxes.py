"""Boxes are (…, 4) float32 `x1, y1, x2, y2` in pixels, continuous: width = x2 - x1.

The authors' code names the last pixel inside instead: width = x2 - x1 + 1. With one added to its x2 and y2
all its arithmetic (IoU, deltas, levels) is the one below, so nothing here has a second form; only its
clipping differs, see `clip`.
"""

import math

import jax.numpy as jnp

# |log(w / w_anchor)| is limited so that exp() of an untrained delta stays finite; the constant of
# Fast R-CNN and all that followed.
MAX_LOG_RATIO = abs(math.log(16 / 1000))


def sizes(boxes):
    """Widths and heights (…,), (…,) of boxes (…, 4)."""
    return boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]


def pairwise_iou(a, b):
    """Intersection over union (N, M) of boxes a (N, 4) with b (M, 4); 0 where both are empty."""
    top_left = jnp.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = jnp.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = jnp.prod(jnp.maximum(bottom_right - top_left, 0), axis=-1)
    area_a = jnp.prod(a[:, 2:] - a[:, :2], axis=-1)
    area_b = jnp.prod(b[:, 2:] - b[:, :2], axis=-1)
    return overlap / jnp.maximum(area_a[:, None] + area_b[None] - overlap, 1e-6)


def clip(boxes, image_size, margin=0.0):
    """Boxes (…, 4) clipped to [0, width] × [0, height] of `image_size` (2,) = height, width.

    `margin`: no upper left corner comes closer to the far border than that many pixels, no lower right one to
    the near border. 1 is the authors' form: every box names a first and a last pixel of the image.
    """
    height, width = image_size[0], image_size[1]
    limit = jnp.stack([width, height, width, height]).astype(boxes.dtype)
    inward = margin * jnp.array([0, 0, 1, 1], boxes.dtype)
    return jnp.clip(boxes, inward, limit - margin + inward)


def encode(anchors, boxes, stds):
    """Deltas (…, 4) `dx, dy, dw, dh` that take `anchors` (…, 4) to `boxes` (…, 4), over `stds` (4,).

    Empty anchors or boxes (padding) give finite deltas.
    """
    aw, ah = sizes(anchors)
    bw, bh = sizes(boxes)
    aw, ah, bw, bh = (jnp.maximum(side, 1e-6) for side in (aw, ah, bw, bh))
    dx = ((boxes[..., 0] + boxes[..., 2]) - (anchors[..., 0] + anchors[..., 2])) * 0.5 / aw
    dy = ((boxes[..., 1] + boxes[..., 3]) - (anchors[..., 1] + anchors[..., 3])) * 0.5 / ah
    return jnp.stack([dx, dy, jnp.log(bw / aw), jnp.log(bh / ah)], axis=-1) / jnp.asarray(stds)


def decode(anchors, deltas, stds):
    """Boxes (…, 4) from `anchors` (…, 4) and `deltas` (…, 4) in units of `stds` (4,); not clipped."""
    deltas = deltas * jnp.asarray(stds)
    width, height = sizes(anchors)
    x = (anchors[..., 0] + anchors[..., 2]) * 0.5 + deltas[..., 0] * width
    y = (anchors[..., 1] + anchors[..., 3]) * 0.5 + deltas[..., 1] * height
    half_w = 0.5 * width * jnp.exp(jnp.clip(deltas[..., 2], -MAX_LOG_RATIO, MAX_LOG_RATIO))
    half_h = 0.5 * height * jnp.exp(jnp.clip(deltas[..., 3], -MAX_LOG_RATIO, MAX_LOG_RATIO))
    return jnp.stack([x - half_w, y - half_h, x + half_w, y + half_h], axis=-1)
