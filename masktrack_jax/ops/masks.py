"""Mask targets: the part of an object's mask that lies in a proposal, at the mask head's resolution."""

import jax
import jax.numpy as jnp

from masktrack_jax.ops.roi_align import bin_samples


def unpack_bits(packed):
    """Masks (…, W) uint8 of 0 and 1 from `packed` (…, W / 8), the bytes of numpy.packbits."""
    bits = (packed[..., None] >> jnp.arange(7, -1, -1, dtype=jnp.uint8)) & 1
    return bits.reshape(*packed.shape[:-1], -1)


def _axis_weights(start, end, bins, cells):
    """Weights (N, P, cells) of every pixel in the averages over the bins of [start, end]."""
    limit = jnp.full(start.shape, cells)
    reach = -(-cells // bins) + 1
    position, weight = bin_samples(start - 0.5, end - start, bins, limit, 0, reach)
    tent = jnp.maximum(1 - jnp.abs(position[..., None] - jnp.arange(cells)), 0)
    return jnp.sum(tent * weight[..., None], axis=-2)


def crop_masks(masks, boxes, index, bins):
    """Binary targets (N, P, P) float32: RoIAlign of the object's mask in the box, at least 0.5.

    `masks` (G, H, W / 8) packed bits at the scale of `boxes` (N, 4) pixels; `index` (N,) says whose mask.
    Same numbers as mmdet's BitmapMasks.crop_and_resize (aligned, adaptive samples), as two matrix
    products, because one bin of a large box averages over hundreds of pixels.
    """
    height, width = masks.shape[1], masks.shape[2] * 8
    rows = _axis_weights(boxes[:, 1], boxes[:, 3], bins, height)
    columns = _axis_weights(boxes[:, 0], boxes[:, 2], bins, width)

    def one(part):
        index, rows, columns = part
        mask = unpack_bits(masks[index]).astype(jnp.float32)
        return rows @ mask @ columns.T

    # One box at a time: the masks of all of them would be hundreds of MiB at video sizes.
    return (jax.lax.map(one, (index, rows, columns)) >= 0.5).astype(jnp.float32)
