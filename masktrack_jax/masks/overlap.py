"""Run-length masks as the evaluators need them: checked, measured and intersected without pixels."""

import numpy as np
from pycocotools import mask as rle_library

from masktrack_jax.masks import rle_strings as runs
from masktrack_jax.masks.segmentations import FAR_AWAY, outline_length

# Masks measured at once: more do not stay in the processor's cache, fewer cost a call each.
_BATCH = 256


class BrokenMask(ValueError):
    """A mask that cannot be one; `track` is the place of its track, the text "frame T: why"."""

    def __init__(self, track, frame, reason):
        super().__init__(f"frame {frame}: not a mask ({reason})")
        self.track = track


def read_track(segmentations, size):
    """One track's (rles, areas), see `read_tracks`."""
    (track,) = read_tracks([segmentations], size)
    return track


def read_tracks(tracks, size):
    """The `segmentations` of tracks as compressed RLEs with their areas.

    Args:
      tracks: list of lists with one entry a frame: compressed RLE, uncompressed RLE, polygons, or
        anything false (`null`, `[]`) where the object is absent.
      size: (height, width) of the video; polygons are drawn at it, RLEs carry their own size.
    Returns:
      A list with (rles, areas) of each track:
      rles: list of `{"size": [h, w], "counts": str}` or None.
      areas: (T,) int64, pixels of each mask, -1 where there is none.
    Raises:
      BrokenMask: a mask that cannot be one.
    """
    found = [([None] * len(masks), [-1] * len(masks)) for masks in tracks]
    places = [(n, t) for n, masks in enumerate(tracks) for t, mask in enumerate(masks) if mask]
    for start in range(0, len(places), _BATCH):
        batch = places[start : start + _BATCH]
        rles = [tracks[n][t] for n, t in batch]
        if not _are_compressed(rles):
            rles = [_convert(rle, size, *place) for rle, place in zip(rles, batch)]
        for (n, t), rle, area in zip(batch, rles, _measure(rles, batch)):
            found[n][0][t], found[n][1][t] = rle, area
    return [(rles, np.array(areas, np.int64)) for rles, areas in found]


def to_rle(segmentation, size):
    """A segmentation in any of the three forms of the json as a compressed RLE.

    Only `read_track` looks into the string of a compressed RLE.
    """
    if isinstance(segmentation, list):
        return _draw(segmentation, size)
    if not isinstance(segmentation, dict) or "counts" not in segmentation or "size" not in segmentation:
        raise ValueError("expected null, polygons, or an object with size and counts")
    counts = segmentation["counts"]
    height, width = segmentation["size"]
    if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
        raise ValueError(f"size must be two positive integers, got {segmentation['size']}")
    if height * width > runs.MOST_PIXELS:
        raise ValueError(f"size {segmentation['size']} is that of no frame")
    if isinstance(counts, list):
        if not counts or not all(isinstance(run, int) and 0 <= run <= height * width for run in counts):
            raise ValueError("uncompressed counts must be integers from 0 to the size")
        return _encode(height, width, counts)
    if isinstance(counts, bytes):
        return {"size": [height, width], "counts": counts.decode("latin-1")}
    if not isinstance(counts, str):
        raise ValueError(f"counts must be a list or a string, got {type(counts).__name__}")
    return segmentation


def overlap_ratios(rles_a, rles_b):
    """IoU of every pair of masks of one frame, (A, B) float64, -1 where the two are of different sizes."""
    ratio = rle_library.iou(rles_a, rles_b, [0] * len(rles_b))
    if any(rle["size"] != rles_a[0]["size"] for rle in rles_a + rles_b):
        sizes_a, sizes_b = (np.array([rle["size"] for rle in side]) for side in (rles_a, rles_b))
        ratio[(sizes_a[:, None] != sizes_b[None]).any(-1)] = -1
    return ratio


def common_pixels(ratio, areas_a, areas_b):
    """Pixels, int64, that masks share whose areas and `overlap_ratios` are given; -1 stays.

    The library returns only the ratio r = i / (a + b - i), in double precision; i = r (a + b) / (1 + r)
    is then the exact integer after rounding.
    """
    shared = np.rint(ratio * (areas_a + areas_b) / (1 + np.maximum(ratio, 0))).astype(np.int64)
    return np.where(ratio < 0, -1, shared)


def _draw(polygons, size):
    """The union of polygons x1, y1, x2, y2, … as one RLE."""
    if not all(isinstance(polygon, list) and len(polygon) >= 4 for polygon in polygons):
        raise ValueError("polygons must be lists x1, y1, x2, y2, … inside one list")
    if not all((np.abs(np.asarray(polygon, float)) < FAR_AWAY).all() for polygon in polygons):
        raise ValueError("a polygon's coordinates are not pixels of a frame")
    if any(outline_length(polygon) > FAR_AWAY for polygon in polygons):
        raise ValueError("a polygon's outline is longer than a frame has room for")
    if None in size:
        raise ValueError("polygons need the video's height and width")
    rle = rle_library.merge(rle_library.frPyObjects(polygons, *size))
    return {"size": list(size), "counts": rle["counts"].decode()}


def _are_compressed(segmentations):
    """Whether all are compressed RLEs of one good size, as they almost always are."""
    if set(map(type, segmentations)) != {dict}:
        return False
    sizes = [segmentation.get("size") for segmentation in segmentations]
    kinds = {type(segmentation.get("counts")) for segmentation in segmentations}
    if kinds != {str} or not isinstance(sizes[0], list) or list(map(type, sizes[0])) != [int, int]:
        return False
    height, width = sizes[0]
    good = height > 0 and width > 0 and height * width <= runs.MOST_PIXELS
    return good and sizes.count(sizes[0]) == len(sizes)


def _convert(segmentation, size, track, frame):
    try:
        return to_rle(segmentation, size)
    except (ValueError, TypeError, OverflowError) as error:
        raise BrokenMask(track, frame, error) from error


def _measure(rles, places):
    """Areas, a list, of compressed RLEs at `places` (track, frame); replaces those with empty runs.

    Runs must fill the size before two masks meet: pycocotools never comes back from a pair of which one
    is shorter.
    """
    strings = [rle["counts"] for rle in rles]
    try:
        areas, covered, has_empty = runs.measure(strings)
    except runs.BrokenString as error:
        raise BrokenMask(*places[error.place], error) from None
    pixels = np.array([rle["size"] for rle in rles]).prod(axis=1)
    for n in np.flatnonzero(covered != pixels)[:1]:
        raise BrokenMask(*places[n], f"its runs cover {covered[n]} pixels, its size has {pixels[n]}")
    for n in np.flatnonzero(has_empty):
        rles[n] = _encode(*rles[n]["size"], runs.without_empty_runs(strings[n]))
    return areas.tolist()


def _encode(height, width, counts):
    """The compressed RLE of a list of run lengths."""
    rle = rle_library.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode()}
