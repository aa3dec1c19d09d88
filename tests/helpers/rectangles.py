"""Masks of rectangles for the tests of masks and tracks."""

import numpy as np

from masktrack_jax.masks.paste import decode_masks


def rectangle(x1, y1, x2, y2, size=(40, 60)):
    mask = np.zeros(size, np.uint8)
    mask[y1:y2, x1:x2] = 1
    return mask


def shown(rle, size=(40, 60)):
    return decode_masks([rle], *size)[0]
