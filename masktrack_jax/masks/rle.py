"""Compressed run-length masks in COCO's form: pixels to runs and back, areas and boxes."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from pycocotools import mask as mask_api


class Rle(TypedDict):
    """One mask. `size` is [height, width]; `counts` is the string that `rle_strings` describes."""

    size: list[int]
    counts: str


def encode_masks(masks: np.ndarray) -> list[Rle]:
    """The RLEs of masks (n, height, width).

    Fast for what `paste_masks` returns; other layouts are copied first.
    """
    stacked = np.asfortranarray(np.transpose(masks, (1, 2, 0)), np.uint8)
    return [_plain(rle) for rle in mask_api.encode(stacked)]


def encode_mask(mask: np.ndarray) -> Rle:
    """The RLE of a mask (height, width)."""
    return _plain(mask_api.encode(np.asfortranarray(mask, np.uint8)))


def encode_runs(height: int, width: int, runs: Sequence[int]) -> Rle:
    """The RLE of run lengths, background first, which must add up to the frame's pixels."""
    return _plain(mask_api.frPyObjects({"size": [height, width], "counts": runs}, height, width))


def draw_polygons(polygons: list[list[float]], height: int, width: int) -> Rle:
    """The RLE of the union of polygons x, y, x, y, …; only sound ones (`segmentations.check_polygons`)."""
    return _plain(mask_api.merge(mask_api.frPyObjects(polygons, height, width)))


def decode_masks(rles: Sequence[Rle], height: int, width: int) -> np.ndarray:
    """The masks (n, height, width) uint8 of RLEs; the size serves for n = 0."""
    if not rles:
        return np.zeros((0, height, width), np.uint8)
    return mask_api.decode(list(rles)).transpose(2, 0, 1)


def decode_mask(rle: Rle) -> np.ndarray:
    """The mask (height, width) uint8 of an RLE, contiguous by rows."""
    return np.ascontiguousarray(mask_api.decode(rle))


def mask_area(rle: Rle) -> int:
    """The number of pixels of a mask."""
    return int(mask_api.area(rle))


def mask_box(rle: Rle) -> list[float]:
    """The box around a mask as annotation files have it: [x, y, width, height] in pixels."""
    return mask_api.toBbox(rle).tolist()


def _plain(rle: dict) -> Rle:
    """An RLE of pycocotools, whose counts are bytes, as JSON can hold it."""
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}
