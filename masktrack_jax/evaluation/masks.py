"""Run-length masks as the evaluators need them: checked, measured and intersected without pixels."""

import numpy as np
from pycocotools import mask as rle_library

_RLE_CHARACTERS = bytes(range(48, 112))
# Coordinates beyond this, or NaN, overflow in the library's polygon code.
_FAR_AWAY = 1e6


def read_track(segmentations, size):
    """One track's `segmentations` as compressed RLEs with their areas.

    Args:
      segmentations: list with one entry a frame: compressed RLE, uncompressed RLE, polygons, or
        anything false (`null`, `[]`) where the object is absent.
      size: (height, width) of the video; polygons are drawn at it, RLEs carry their own size.
    Returns:
      rles: list of `{"size": [h, w], "counts": bytes}` or None.
      areas: (T,) int64, pixels of each mask, -1 where there is none.
    Raises:
      ValueError: a mask that cannot be one, as "frame T: why".
    """
    rles = []
    for frame, segmentation in enumerate(segmentations):
        try:
            rles.append(to_rle(segmentation, size) if segmentation else None)
        except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
            raise ValueError(f"frame {frame}: not a mask ({error})") from error
    frames = np.array([rle is not None for rle in rles], bool)
    areas = np.full(len(rles), -1, np.int64)
    if frames.any():
        areas[frames] = _measure([rle for rle in rles if rle is not None], np.flatnonzero(frames))
    return rles, areas


def to_rle(segmentation, size):
    """A segmentation in any of the three forms of the json as a compressed RLE with bytes counts."""
    if isinstance(segmentation, list):
        if not all(isinstance(polygon, list) and len(polygon) >= 4 for polygon in segmentation):
            raise ValueError("polygons must be lists x1, y1, x2, y2, … inside one list")
        if not all((np.abs(np.asarray(polygon, float)) < _FAR_AWAY).all() for polygon in segmentation):
            raise ValueError("a polygon's coordinates are not pixels of a frame")
        if None in size:
            raise ValueError("polygons need the video's height and width")
        return rle_library.merge(rle_library.frPyObjects(segmentation, *size))
    if not isinstance(segmentation, dict) or "counts" not in segmentation or "size" not in segmentation:
        raise ValueError("expected null, polygons, or an object with size and counts")
    counts = segmentation["counts"]
    height, width = segmentation["size"]
    if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
        raise ValueError(f"size must be two positive integers, got {segmentation['size']}")
    if isinstance(counts, list):
        if not all(isinstance(run, int) and run >= 0 for run in counts):
            raise ValueError("uncompressed counts must be integers from 0 up")
        _check_sum(sum(counts), height * width)
        return rle_library.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    if isinstance(counts, str):
        counts = counts.encode()
    # The C decoder reads past the end of a string that stops in the middle of a number.
    if not counts or counts[-1] >= 80 or counts.translate(None, _RLE_CHARACTERS):
        raise ValueError("counts is not a complete RLE string")
    return {"size": [height, width], "counts": counts}


def intersections(rles_a, areas_a, rles_b, areas_b):
    """Common pixels of every pair of masks of one frame, (A, B) int64.

    The library returns only the ratio r = i / (a + b - i), in double precision; i = r (a + b) / (1 + r)
    is then the exact integer after rounding. Masks of different sizes have none in common (r = -1).
    """
    ratio = np.maximum(rle_library.iou(rles_a, rles_b, [0] * len(rles_b)), 0)
    total = areas_a[:, None] + areas_b[None, :]
    return np.rint(ratio * total / (1 + ratio)).astype(np.int64)


def _measure(rles, frames):
    """Areas (N,) int64 of compressed RLEs, after checking that their runs fill their size.

    The check matters: the library's loop over two masks never ends when one is shorter. It costs
    two passes in C. Runs alternate background and object, and a compressed run is the difference to
    the run two before, the first three excepted; so without its first run the same string describes
    runs whose object pixels are exactly the remaining background.
    """
    heads, tails = [], []
    for rle in rles:
        run, end = _first_run(rle["counts"])
        heads.append(run)
        tails.append({"size": rle["size"], "counts": rle["counts"][end:]})
    areas = np.asarray(rle_library.area(rles), np.int64)
    runs = areas + np.asarray(rle_library.area(tails), np.int64) + heads
    for frame, rle, length in zip(frames, rles, runs):
        height, width = rle["size"]
        if length != height * width:
            try:
                _check_sum(int(length), height * width)
            except ValueError as error:
                raise ValueError(f"frame {frame}: not a mask ({error})") from error
    return areas


def _first_run(counts):
    """(length of the first run, number of characters it takes) of a compressed RLE string.

    Five bits a character from the lowest up, bit 5 set when more follow, bit 4 of the last the sign.
    """
    run = 0
    for place, character in enumerate(counts):
        code = character - 48
        run |= (code & 31) << (5 * place)
        if code < 32:
            break
    if code & 16:
        run -= 32 << (5 * place)
    return run, place + 1


def _check_sum(length, pixels):
    if length != pixels:
        raise ValueError(f"its runs cover {length} pixels, its size has {pixels}")
