"""Mask targets: crop an object's mask to a proposal, at the mask head's resolution."""

from functools import partial

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

from masktrack_jax.ops.roi_samples import Interval, cell_weights


def unpack_bits(packed: UInt8[Array, "*rows bytes"]) -> UInt8[Array, "*rows width"]:
    """Unpack the bytes of `numpy.packbits` along the last axis to values 0 and 1."""
    bits = (packed[..., None] >> jnp.arange(7, -1, -1, dtype=jnp.uint8)) & 1
    return bits.reshape(*packed.shape[:-1], -1)


def _axis_weights(
    start: Float[Array, " boxes"], end: Float[Array, " boxes"], bins: int, cells: int
) -> Float[Array, "boxes bins {cells}"]:
    """The weight of every pixel in the average over each bin of [start, end]."""
    interval = Interval(start - 0.5, end - start, jnp.full(start.shape, cells))
    return cell_weights(interval, bins, 0, -(-cells // bins) + 1, jnp.arange(cells))


def _two_taps(
    start: Float[Array, " boxes"], end: Float[Array, " boxes"], bins: int, whole_border: bool
) -> tuple[Int[Array, "2 boxes bins"], Int[Array, "2 boxes bins"]]:
    """The two pixels that each bin of [start, end] samples, and their weights in 1/2048.

    This is OpenCV's bilinear resize of 8-bit images, applied to the box's whole pixels. Beyond the centres of
    the first and last pixels both taps are the same pixel; with `whole_border` one tap has all the weight
    there.
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


def resize_masks(
    masks: UInt8[Array, "objects height bytes"],
    boxes: Float[Array, "boxes 4"],
    indices: Int[Array, " boxes"],
    bins: int,
) -> Float[Array, "boxes {bins} {bins}"]:
    """`crop_masks` in the authors' form: whole pixels, resized as an 8-bit image.

    Equals OpenCV's fixed-point arithmetic bit for bit, including its different borders on the two axes.
    """
    y, wy = _two_taps(boxes[:, 1], boxes[:, 3], bins, whole_border=False)
    x, wx = _two_taps(boxes[:, 0], boxes[:, 2], bins, whole_border=True)

    def pixels(y: Int[Array, "boxes bins"], x: Int[Array, "boxes bins"]) -> UInt8[Array, "boxes bins bins"]:
        byte = masks[indices[:, None, None], y[:, :, None], x[:, None] // 8]
        return (byte >> (7 - x % 8).astype(jnp.uint8)[:, None]) & 1

    def row(k: int) -> Int[Array, "boxes bins bins"]:
        across = sum(pixels(y[k], x[j]) * wx[j][:, None] for j in (0, 1))
        return (wy[k][:, :, None] * (across >> 4)) >> 16

    return ((row(0) + row(1) + 2) >> 2).astype(jnp.float32)


def crop_masks(
    masks: UInt8[Array, "objects height bytes"],
    boxes: Float[Array, "boxes 4"],
    indices: Int[Array, " boxes"],
    bins: int,
    chunk: int = 1,
) -> Float[Array, "boxes {bins} {bins}"]:
    """Binary targets: whether RoIAlign of the object's mask in the box is at least 0.5.

    `masks` are packed bits at the scale of `boxes`; `indices` are the index of each box's mask. The values
    equal mmdet's BitmapMasks.crop_and_resize (aligned, adaptive samples). They are computed as two matrix
    products, because one bin of a large box averages over hundreds of pixels, for `chunk` boxes at a time,
    since the masks of all boxes would take hundreds of MiB at video sizes.
    """
    height, width = masks.shape[1], masks.shape[2] * 8
    rows = _axis_weights(boxes[:, 1], boxes[:, 3], bins, height)
    columns = _axis_weights(boxes[:, 0], boxes[:, 2], bins, width)

    def one(part: tuple[Int[Array, ""], Float[Array, "bins height"], Float[Array, "bins width"]]) -> Array:
        index, rows, columns = part
        mask = unpack_bits(masks[index]).astype(jnp.float32)
        return multiply(multiply(rows, mask), columns.T)

    multiply = partial(jnp.matmul, precision=lax.Precision.HIGHEST)  # a share near 0.5 must not be rounded
    shares = lax.map(one, (indices, rows, columns), batch_size=chunk if chunk > 1 else None)
    return (shares >= 0.5).astype(jnp.float32)
