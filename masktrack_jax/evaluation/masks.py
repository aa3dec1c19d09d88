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
      rles: list of `{"size": [h, w], "counts": str or bytes}` or None.
      areas: (T,) int64, pixels of each mask, -1 where there is none.
    Raises:
      ValueError: a mask that cannot be one, as "frame T: why".
    """
    rles, areas = [None] * len(segmentations), np.full(len(segmentations), -1, np.int64)
    frames = [frame for frame, segmentation in enumerate(segmentations) if segmentation]
    for frame in frames:
        try:
            rles[frame] = to_rle(segmentations[frame], size)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"frame {frame}: not a mask ({error})") from error
    present = [rles[frame] for frame in frames]
    areas[frames], covered = _measure(present)
    for frame, rle, pixels in zip(frames, present, covered.tolist()):
        height, width = rle["size"]
        if pixels != height * width:
            reason = f"its runs cover {pixels} pixels, its size has {height * width}"
            raise ValueError(f"frame {frame}: not a mask ({reason})")
    return rles, areas


def to_rle(segmentation, size):
    """A segmentation in any of the three forms of the json as a compressed RLE.

    Only `read_track` checks that the runs of a compressed RLE fill its size.
    """
    if isinstance(segmentation, list):
        return _draw(segmentation, size)
    if not isinstance(segmentation, dict) or "counts" not in segmentation or "size" not in segmentation:
        raise ValueError("expected null, polygons, or an object with size and counts")
    counts = segmentation["counts"]
    height, width = segmentation["size"]
    if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
        raise ValueError(f"size must be two positive integers, got {segmentation['size']}")
    if height * width >= 2**32:  # the library counts pixels in 32 bits
        raise ValueError(f"size {segmentation['size']} is that of no frame")
    if isinstance(counts, list):
        if not counts or not all(isinstance(run, int) and 0 <= run <= height * width for run in counts):
            raise ValueError("uncompressed counts must be integers from 0 to the size")
        return rle_library.frPyObjects(segmentation, height, width)
    if isinstance(counts, str):
        text = counts.encode()
    elif isinstance(counts, bytes):
        text = counts
    else:
        raise ValueError(f"counts must be a list or a string, got {type(counts).__name__}")
    # The C decoder reads past the end of a string that stops in the middle of a number.
    if not text or text[-1] >= 80 or text.translate(None, _RLE_CHARACTERS):
        raise ValueError("counts is not a complete RLE string")
    return segmentation


def intersections(rles_a, areas_a, rles_b, areas_b):
    """Common pixels of every pair of masks of one frame, (A, B) int64.

    The library returns only the ratio r = i / (a + b - i), in double precision; i = r (a + b) / (1 + r)
    is then the exact integer after rounding. Masks of different sizes have none in common (r = -1).
    """
    ratio = np.maximum(rle_library.iou(rles_a, rles_b, [0] * len(rles_b)), 0)
    total = areas_a[:, None] + areas_b[None, :]
    return np.rint(ratio * total / (1 + ratio)).astype(np.int64)


def _draw(polygons, size):
    """The union of polygons x1, y1, x2, y2, … as one RLE."""
    if not all(isinstance(polygon, list) and len(polygon) >= 4 for polygon in polygons):
        raise ValueError("polygons must be lists x1, y1, x2, y2, … inside one list")
    if not all((np.abs(np.asarray(polygon, float)) < _FAR_AWAY).all() for polygon in polygons):
        raise ValueError("a polygon's coordinates are not pixels of a frame")
    if None in size:
        raise ValueError("polygons need the video's height and width")
    return rle_library.merge(rle_library.frPyObjects(polygons, *size))


def _measure(rles):
    """Area and length of all runs, each (N,) int64, of compressed RLEs.

    The length must be compared with the size before two masks meet: the library's loop over a pair
    never ends when one is shorter. It costs a second pass in C. Runs alternate background and object,
    and a compressed run is the difference to the run two before, the first three excepted; so without
    its first run the same string describes runs whose object pixels are exactly the remaining
    background.
    """
    heads, tails = [], []
    for rle in rles:
        run, end = _first_run(rle["counts"])
        heads.append(run)
        tails.append({"size": rle["size"], "counts": rle["counts"][end:]})
    areas = np.asarray(rle_library.area(rles + tails), np.int64)
    return areas[: len(rles)], areas[: len(rles)] + areas[len(rles) :] + np.array(heads, np.int64)


def _first_run(counts):
    """(length of the first run, number of characters it takes) of a compressed RLE string.

    Five bits a character from the lowest up, bit 5 set when more follow, bit 4 of the last the sign.
    """
    run = shift = 0
    for character in counts[:8].encode() if isinstance(counts, str) else counts[:8]:
        code = character - 48
        run |= (code & 31) << shift
        shift += 5
        if code < 32:
            break
    return run - ((code & 16) << (shift - 4)), shift // 5
