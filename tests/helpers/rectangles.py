"""Masks of rectangles for the tests of masks and tracks."""

import numpy as np

from masktrack_jax.masks.rle import Rle, decode_masks


def rectangle(x1: int, y1: int, x2: int, y2: int, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    mask[y1:y2, x1:x2] = 1
    return mask


def shown(rle: Rle, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    return decode_masks([rle], *size)[0]
