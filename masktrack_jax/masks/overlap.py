"""Intersections of run-length masks, computed without decoding them."""

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as mask_api

from masktrack_jax.masks.rle import Rle


def overlap_ratios(rles_a: Sequence[Rle], rles_b: Sequence[Rle]) -> np.ndarray:
    """IoU of every pair of masks of one frame: (A, B) float64, -1 where their sizes differ.

    The masks must come from `segmentations.read_tracks`, since pycocotools never returns if the runs of a
    mask do not fill its frame.
    """
    ratio = mask_api.iou(rles_a, rles_b, [0] * len(rles_b))
    if any(rle["size"] != rles_a[0]["size"] for rle in [*rles_a, *rles_b]):
        sizes_a, sizes_b = (np.array([rle["size"] for rle in side]) for side in (rles_a, rles_b))
        ratio[(sizes_a[:, None] != sizes_b[None]).any(-1)] = -1
    return ratio


def common_pixels(ratio: np.ndarray, areas_a: np.ndarray, areas_b: np.ndarray) -> np.ndarray:
    """The intersections of masks in pixels, int64, from their `overlap_ratios` and areas; -1 stays -1.

    pycocotools returns only the ratio r = i / (a + b - i), in double precision. Rounding
    i = r (a + b) / (1 + r) gives the exact integer.
    """
    shared = np.rint(ratio * (areas_a + areas_b) / (1 + np.maximum(ratio, 0))).astype(np.int64)
    return np.where(ratio < 0, -1, shared)
