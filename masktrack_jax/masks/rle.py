"""Compressed run-length masks (COCO's RLE): encode, decode, area and box."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from pycocotools import mask as mask_api


class Rle(TypedDict):
    """One mask. `size` is [height, width]; for the string `counts` see `rle_strings`."""

    size: list[int]
    counts: str


def encode_masks(masks: np.ndarray) -> list[Rle]:
    """The RLEs of masks (n, height, width).

    Fast for the memory layout of `paste_masks`; other layouts are copied first.
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
    """The RLE of the union of polygons x, y, x, y, …, which must pass `segmentations.check_polygons`."""
    return _plain(mask_api.merge(mask_api.frPyObjects(polygons, height, width)))


def decode_masks(rles: Sequence[Rle], height: int, width: int) -> np.ndarray:
    """The masks (n, height, width) uint8 of RLEs; the size is used only if n = 0."""
    if not rles:
        return np.zeros((0, height, width), np.uint8)
    return mask_api.decode(list(rles)).transpose(2, 0, 1)


def decode_mask(rle: Rle) -> np.ndarray:
    """The mask (height, width) uint8 of an RLE, in C order."""
    return np.ascontiguousarray(mask_api.decode(rle))


def mask_area(rle: Rle) -> int:
    """The number of pixels of a mask."""
    return int(mask_api.area(rle))


def mask_box(rle: Rle) -> list[float]:
    """The bounding box of a mask, as in annotation files: [x, y, width, height] in pixels."""
    return mask_api.toBbox(rle).tolist()


def mask_boxes(rles: Sequence[Rle]) -> np.ndarray:
    """The bounding boxes of masks, as `mask_box`: (N, 4) float64."""
    return mask_api.toBbox(list(rles)) if rles else np.zeros((0, 4))


def _plain(rle: dict) -> Rle:
    """Convert an RLE of pycocotools, whose counts are bytes, for JSON."""
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}
