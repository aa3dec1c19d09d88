"""Run heads on chunks of boxes, in time proportional to the number of valid boxes.

Arrays are padded to the largest number of boxes that a frame may have, and most frames have far fewer.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from masktrack_jax.models import box_head, mask_head
from masktrack_jax.models.forms import forms, uses_winograd
from masktrack_jax.ops.valid_rows import map_present, map_valid

# Masks and embeddings are computed in large chunks of detections, and the last ones in chunks of a quarter of
# that size. A chunk has at least LEAST_CHUNK rows, since products of few rows are slow. There are at most
# MOST_CHUNKS large chunks, since a GPU has to wait for each one.
LEAST_CHUNK, MOST_CHUNKS, LARGER = 4, 25, 4
LEAST_TRAINED, MOST_TRAINED_CHUNKS = 8, 8  # the same for positive RoIs in training


def chunk_sizes(count: int) -> tuple[int, int]:
    """Sizes of the large chunks and of the last chunks, for up to `count` detections."""
    small = min(count, max(LEAST_CHUNK, -(-count // (LARGER * MOST_CHUNKS))))
    return min(count, LARGER * small), small


def masks_and_embeddings(
    pool: Callable[..., Float[Array, "..."]],
    heads: tuple[mask_head.MaskHead, nn.Module],
    boxes: Float[Array, "batch boxes 4"],
    labels: Int[Array, "batch boxes"],
    valid: Bool[Array, "batch boxes"],
) -> tuple[Float[Array, "batch boxes 28 28"], Float[Array, "batch boxes embedding"]]:
    """Masks and embeddings of the valid boxes by the mask and track heads; zeros for the others.

    `pool`: (boxes, valid, bins, images) → RoI features, as `MaskTrackRCNN.pool`. Without gradients.
    """
    if forms().heads_boxes:
        return _in_passes(pool, heads, boxes, labels, valid)
    shape = valid.shape
    images = jnp.broadcast_to(jnp.arange(shape[0], dtype=jnp.int32)[:, None], shape)
    rows = [x.reshape(-1, *x.shape[2:]) for x in (boxes, labels, images)]
    mask, track = map(_unbound, heads)

    def masks(rows: list[Array], exist: Bool[Array, " chunk"]) -> Float[Array, "chunk 28 28"]:
        boxes, labels, images = rows
        roi = pool(boxes[None], exist[None], mask_head.BINS, images[None])
        return jax.nn.sigmoid(mask(roi, labels))

    def embeddings(rows: list[Array], exist: Bool[Array, " chunk"]) -> Float[Array, "chunk embedding"]:
        boxes, _, images = rows
        roi = pool(boxes[None], exist[None], box_head.BINS, images[None])
        return track(roi)

    chunks = chunk_sizes(valid.size)
    # The paper's track head spends its time reading its parameters, so invalid rows cost nothing and all its
    # chunks are large.
    parts = (masks, chunks), (embeddings, chunks[:1])
    found = [map_valid(part, valid.reshape(-1), rows, sizes) for part, sizes in parts]
    of_masks, of_embeddings = (x.reshape(*shape, *x.shape[1:]) for x in found)
    return of_masks, of_embeddings


def _in_passes(
    pool: Callable[..., Float[Array, "..."]],
    heads: tuple[mask_head.MaskHead, nn.Module],
    boxes: Float[Array, "batch boxes 4"],
    labels: Int[Array, "batch boxes"],
    valid: Bool[Array, "batch boxes"],
) -> tuple[Float[Array, "batch boxes 28 28"], Float[Array, "batch boxes embedding"]]:
    """`masks_and_embeddings` of the same number of boxes of every image at a time, the best boxes first.

    Most batches need a single pass, since most frames have few detections and these come first.
    """
    batch, count = valid.shape
    width = min(count, max(1, forms().heads_boxes // batch))
    mask, track = map(_unbound, heads)

    def run(first: Int[Array, ""] | int) -> tuple[Array, Array]:
        part = [lax.dynamic_slice_in_dim(x, first, width, axis=1) for x in (boxes, labels, valid)]
        some, kinds, exist = part
        masks = jax.nn.sigmoid(mask(pool(some, exist, mask_head.BINS), kinds.reshape(-1)))
        embeddings = track(pool(some, exist, box_head.BINS))

        def shown(values: Array) -> Array:
            values = values.reshape(batch, width, *values.shape[1:])
            return jnp.where(exist.reshape(batch, width, *(1,) * (values.ndim - 2)), values, 0)

        return shown(masks), shown(embeddings)

    def write(i: Array, outputs: tuple[Array, Array]) -> tuple[Array, Array]:
        first = i * width
        return jax.tree.map(
            lambda out, new: lax.dynamic_update_slice_in_dim(out, new, first, axis=1), outputs, run(first)
        )

    shapes = jax.eval_shape(run, 0)
    outputs = jax.tree.map(lambda x: jnp.zeros((batch, count, *x.shape[2:]), x.dtype), shapes)
    last = jnp.max(jnp.where(valid, jnp.arange(1, count + 1), 0))
    return lax.fori_loop(0, -(-last // width), write, outputs)


def mask_logits(
    head: mask_head.MaskHead,
    roi: Float[Array, "rois rows columns channels"],
    labels: Int[Array, " rois"],
    valid: Bool[Array, " rois"],
) -> Float[Array, "rois _height _width"]:
    """Mask logits of the valid RoIs, each for its own label, with gradients; the others are arbitrary.

    The time of a large head, and of its gradient, depends on the number of valid RoIs.
    """
    chunk = max(LEAST_TRAINED, -(-valid.size // MOST_TRAINED_CHUNKS))
    kernel = (3, 3, roi.shape[-1], head.channels)
    # A chunk is skipped by a conditional. In one, XLA's own gradient of a convolution is up to 18 times as
    # slow on a CPU. An accelerator computes all RoIs in the time of a few such steps.
    if not uses_winograd((chunk, *roi.shape[1:]), head.dtype, kernel):
        return head(roi, labels)
    unbound = _unbound(head)
    return map_present(lambda rows: unbound(*rows), valid, (roi, labels), chunk)


def _unbound(head: nn.Module) -> Callable[..., Any]:
    """Convert a head to a function: bound Flax modules cannot be called in a JAX loop or conditional."""
    module, variables = head.unbind()
    return lambda *arrays: module.apply(variables, *arrays)
