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


def _two_taps(start, end, bins, whole_border):
    """The two pixels (2, N, P) that each bin of [start, end] reads and their weights in 1/2048, int32.

    OpenCV's bilinear resize of 8-bit images, of the box's whole pixels. Outside the first and last pixel's
    centre both taps are the same pixel; `whole_border`: one of them then has all the weight.
    """
    first, last = start.astype(jnp.int32)[:, None], (end - 1).astype(jnp.int32)[:, None]
    length = jnp.maximum(last - first + 1, 1)
    # The bin's centre on the pixels' grid, exactly: ((k + ½) · length / bins − ½) in 1 / (2 · bins).
    position = (2 * jnp.arange(bins, dtype=jnp.int32) + 1) * length - bins
    low, part = position // (2 * bins), position % (2 * bins)
    if whole_border:
        part = jnp.where((low < 0) | (low >= length - 1), 0, part)
        low = jnp.maximum(low, 0)
    taps = first + jnp.clip(jnp.stack([low, low + 1]), 0, length - 1)
    weights = jnp.round(jnp.stack([2 * bins - part, part]) * (1024 / bins))
    return taps, weights.astype(jnp.int32)


def resize_masks(masks, boxes, index, bins):
    """As `crop_masks`, in the authors' form: the box's whole pixels, resized as an 8-bit image.

    Bit for bit OpenCV's fixed-point arithmetic, whose borders differ between the axes.
    """
    y, wy = _two_taps(boxes[:, 1], boxes[:, 3], bins, whole_border=False)
    x, wx = _two_taps(boxes[:, 0], boxes[:, 2], bins, whole_border=True)

    def pixels(y, x):
        byte = masks[index[:, None, None], y[:, :, None], x[:, None] // 8]
        return (byte >> (7 - x % 8).astype(jnp.uint8)[:, None]) & 1

    def row(k):
        across = sum(pixels(y[k], x[j]) * wx[j][:, None] for j in (0, 1))
        return (wy[k][:, :, None] * (across >> 4)) >> 16

    return ((row(0) + row(1) + 2) >> 2).astype(jnp.float32)


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
