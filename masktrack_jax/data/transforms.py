"""Augmentation of training pairs: resize, flip and colour jitter. Both frames get the same transform.

Boxes are x1, y1, x2, y2 in pixels, as continuous coordinates; masks are 0 or 1.
"""

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from masktrack_jax.data.options import PairOptions
from masktrack_jax.video.images import fit_scale, fit_size, resize_image


@dataclasses.dataclass(frozen=True)
class Transform:
    """One draw of the random changes.

    Both frames of a pair get the same colour jitter, since objects are distinguished by their appearance. A
    change of only one frame would teach the track head to ignore colour.
    """

    long_edge: int
    short_edge: int
    flip: bool
    float_resize: bool
    pixel_boxes: bool
    light: np.ndarray | None  # (1, 256, 3) uint8: table of new pixel values for each channel


def draw_transform(rng: np.random.Generator, options: PairOptions) -> Transform:
    """Draw a `Transform` within the limits of `options`."""
    long_edge, short_edge = options.scales[rng.integers(len(options.scales))]
    flip = bool(rng.random() < options.flip)
    light = _draw_light(rng, options)
    return Transform(long_edge, short_edge, flip, options.float_resize, options.pixel_boxes, light)


def _draw_light(rng: np.random.Generator, options: PairOptions) -> np.ndarray | None:
    """A table of new pixel values, or None if the strength is 0."""
    if options.jitter == 0:
        return None
    shift = 255 * rng.uniform(-options.jitter, options.jitter)
    contrast = 1 + rng.uniform(-options.jitter, options.jitter)
    gains = 1 + rng.uniform(-options.jitter, options.jitter, 3)
    values = np.arange(256)[:, None] * gains
    table = (values - 128) * contrast + 128 + shift
    return np.clip(np.rint(table), 0, 255).astype(np.uint8)[None]


def transform_image(image: np.ndarray, transform: Transform) -> np.ndarray:
    """Transform an image (H, W, 3) uint8: (h, w, 3) uint8, or float32 with `float_resize`."""
    height, width = fit_size(image.shape[0], image.shape[1], transform.long_edge, transform.short_edge)
    if transform.float_resize:
        image = image.astype(np.float32)
    image = resize_image(image, height, width)
    if transform.light is not None:
        image = cv2.LUT(np.ascontiguousarray(image), transform.light)
    return image[:, ::-1] if transform.flip else image


def transform_boxes(
    boxes: Sequence | np.ndarray, height: int, width: int, transform: Transform
) -> np.ndarray:
    """Transform boxes (N, 4) of an image of this size like the image, and clip them: (N, 4) float32.

    With `pixel_boxes`, the first and last pixels of a box are scaled by one factor for both axes and clipped.
    """
    edges = transform.long_edge, transform.short_edge
    new_height, new_width = fit_size(height, width, *edges)
    scale: float | np.ndarray
    if transform.pixel_boxes:
        scale, last = fit_scale(height, width, *edges), np.array([0, 0, 1, 1])
    else:
        scale, last = np.array([new_width / width, new_height / height] * 2), np.zeros(4)
    moved = (np.asarray(boxes, np.float64).reshape(-1, 4) - last) * scale
    moved = np.clip(moved, 0, np.array([new_width, new_height] * 2) - last.max()) + last
    if transform.flip:
        moved = np.stack([new_width - moved[:, 2], moved[:, 1], new_width - moved[:, 0], moved[:, 3]], axis=1)
    return moved.astype(np.float32)


def transform_mask(mask: np.ndarray, transform: Transform) -> np.ndarray:
    """Transform a mask (H, W) uint8 of 0 and 1 like its image, by nearest pixel: (h, w) uint8."""
    height, width = fit_size(mask.shape[0], mask.shape[1], transform.long_edge, transform.short_edge)
    if mask.shape != (height, width):
        mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
    return mask[:, ::-1] if transform.flip else mask
