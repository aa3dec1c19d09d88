"""Check the segmentations of JSON files and convert them to compressed RLEs.

A segmentation has one of three forms: an RLE with compressed counts (text), an RLE with a list of counts, or
a list of polygons x, y, x, y, … in pixels.
"""

import reprlib
from collections.abc import Iterator, Sequence
from numbers import Real
from typing import NamedTuple

import numpy as np

from masktrack_jax.masks import rle_strings
from masktrack_jax.masks.rle import Rle, decode_mask, draw_polygons, encode_runs
from masktrack_jax.masks.rle_strings import MOST_PIXELS
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.numbers import as_integer

FAR_AWAY = (
    1e6  # pixels; pycocotools needs 100 MB for an outline of this length, and all memory for longer ones
)
# Masks measured at once: more do not fit in the processor's cache, fewer need more calls.
_BATCH = 256

Size = tuple[int, int]  # height, width


class BrokenSegmentation(ValueError):
    """A segmentation that is not a valid mask; `place` is its index in the input."""

    def __init__(self, place: int, reason: object) -> None:
        super().__init__(str(reason))
        self.place = place


class BrokenMask(ValueError):
    """A broken segmentation of a track: `track` is its index, the text is "frame T: not a mask (why)"."""

    def __init__(self, track: int, frame: int, reason: object) -> None:
        super().__init__(f"frame {frame}: not a mask ({reason})")
        self.track = track


class TrackMasks(NamedTuple):
    """The masks of one track, one entry per frame; None and an area of -1 where the object is absent."""

    rles: list[Rle | None]
    areas: np.ndarray  # (T,) int64, pixels


class Masks(NamedTuple):
    """Compressed RLEs and their areas in pixels."""

    rles: list[Rle]
    areas: list[int]


def read_track(segmentations: Sequence, size: Size) -> TrackMasks:
    """The masks of one track, see `read_tracks`."""
    (track,) = read_tracks([segmentations], size)
    return track


def read_tracks(tracks: Sequence[Sequence], size: Size) -> list[TrackMasks]:
    """The masks of tracks, which are lists with one segmentation per frame.

    Any false value (`null`, `[]`) means that the object is absent. `size` is the (height, width) of the
    video. Polygons are drawn at this size; RLEs may have another size. Raises BrokenMask.
    """
    rles: list[list[Rle | None]] = [[None] * len(masks) for masks in tracks]
    areas = [np.full(len(masks), -1, np.int64) for masks in tracks]
    places = [(n, t) for n, masks in enumerate(tracks) for t, mask in enumerate(masks) if mask]
    try:
        found = read_masks([tracks[n][t] for n, t in places], size, any_size=True)
    except BrokenSegmentation as error:
        raise BrokenMask(*places[error.place], error) from error
    for (n, t), rle, area in zip(places, found.rles, found.areas):
        rles[n][t], areas[n][t] = rle, area
    return list(map(TrackMasks, rles, areas))


def read_masks(segmentations: Sequence, size: Size, *, any_size: bool = False) -> Masks:
    """The masks of segmentations, none absent, in frames of `size` (height, width).

    With `any_size` an RLE may have another size than the frame. Empty runs are merged with their neighbours,
    except the first. Raises BrokenSegmentation.
    """
    rles: list[Rle] = []
    areas: list[int] = []
    for start in range(0, len(segmentations), _BATCH):
        batch = list(segmentations[start : start + _BATCH])
        if not _are_compressed(batch, None if any_size else size):
            batch = [_to_rle(mask, size, any_size, start + n) for n, mask in enumerate(batch)]
        areas += _measure(batch, start)
        rles += batch
    return Masks(rles, areas)


def read_each(segmentations: Sequence, size: Size) -> Iterator[tuple[Rle, int] | BrokenSegmentation]:
    """Like `read_masks`, but yields for each segmentation its RLE and area, or the error if it is broken."""
    try:
        yield from zip(*read_masks(segmentations, size))
        return
    except BrokenSegmentation:
        pass  # `place` may belong to a later one
    for one in segmentations:
        try:
            yield from zip(*read_masks([one], size))
        except BrokenSegmentation as error:
            yield error


def to_rle(segmentation: object, size: Size, *, any_size: bool = False) -> Rle:
    """The compressed RLE of one segmentation; `read_masks` is faster for many.

    Raises ValueError with the reason if it is not a valid mask.
    """
    return read_masks([segmentation], size, any_size=any_size).rles[0]


def decode_segmentation(segmentation: object, height: int, width: int) -> np.ndarray:
    """The mask (height, width) uint8 of a segmentation. Raises UserError if it is not a valid mask."""
    try:
        return decode_mask(to_rle(segmentation, (height, width)))
    except ValueError as error:
        raise UserError(f"a frame of {height}x{width}: {error}; correct the annotations file") from None


def outline_length(polygon: Sequence[float]) -> float:
    """The length of a closed polygon x, y, x, y, … in pixels; a side counts max(|Δx|, |Δy|)."""
    corners = np.array(polygon, float).reshape(-1, 2)
    return float(np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1).sum())


def check_polygons(polygons: list) -> None:
    """Raise ValueError unless these are polygons that pycocotools can draw in reasonable time and memory."""
    if not polygons:
        raise ValueError("an empty list of polygons")
    if all(isinstance(value, Real) for value in polygons):
        raise ValueError("one list of numbers; write a list of polygons: [[x, y, x, y, …]]")
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError("a polygon that is not a list of three or more x, y pairs")
        if not all(issubclass(kind, Real) and kind is not bool for kind in set(map(type, polygon))):
            raise ValueError("a polygon with something other than numbers")
        if not all(abs(value) < FAR_AWAY for value in polygon):  # also true for NaN
            raise ValueError("a polygon far outside any frame")
        if outline_length(polygon) > FAR_AWAY:
            raise ValueError("a polygon whose outline is too long for any frame")


def _to_rle(segmentation: object, size: Size, any_size: bool, place: int) -> Rle:
    """Convert a segmentation of any form to an RLE; `_measure` checks its string later."""
    try:
        if isinstance(segmentation, list):
            return _draw(segmentation, size)
        if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
            found = reprlib.repr(segmentation)
            raise ValueError(f"neither RLE with `size` and `counts` nor polygons but {found}")
        return _compress(segmentation, *_size_of(segmentation, size, any_size))
    except (ValueError, TypeError, OverflowError) as error:
        raise BrokenSegmentation(place, error) from error


def _draw(polygons: list, size: Size) -> Rle:
    check_polygons(polygons)
    if None in size:
        raise ValueError("polygons need the video's height and width")
    _check_size(size)
    return draw_polygons(polygons, *size)


def _size_of(rle: dict, size: Size, any_size: bool) -> Size:
    """The (height, width) of an RLE of any form."""
    stated = rle["size"]
    if isinstance(stated, list | tuple):
        stated = [side if as_integer(side) is None else as_integer(side) for side in stated]
    if not any_size:
        if not isinstance(stated, list | tuple) or list(stated) != list(size):
            raise ValueError(f"RLE of size {stated!r:.60} but its video is {list(size)} (height, width)")
        stated = size
    _check_size(stated)
    return tuple(stated)


def _check_size(size: object) -> None:
    if not isinstance(size, list | tuple) or len(size) != 2:
        raise ValueError(f"size must be a height and a width, got {size!r:.60}")
    height, width = size
    if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
        raise ValueError(f"size must be two positive integers, got {size!r:.60}")
    if height * width > MOST_PIXELS:
        raise ValueError(f"size {size!r:.60} has more pixels than any camera's")


def _compress(rle: dict, height: int, width: int) -> Rle:
    """Convert the counts of an RLE of this size to text."""
    counts = rle["counts"]
    if isinstance(counts, list):
        plain = {*map(type, counts)} == {int}
        runs: list = counts if plain else [as_integer(run) for run in counts]
        if not runs or not all(run is not None and 0 <= run <= height * width for run in runs):
            raise ValueError("RLE `counts` that are not a list of integers from 0 to the frame's pixels")
        return encode_runs(height, width, runs)
    if isinstance(counts, bytes):
        return {"size": [height, width], "counts": counts.decode("latin-1")}
    if not isinstance(counts, str):
        raise ValueError(f"RLE `counts` that are {type(counts).__name__}, neither a list nor text")
    return {"size": [height, width], "counts": counts}


def _are_compressed(segmentations: list, size: Size | None) -> bool:
    """Whether all are compressed RLEs of one valid size: `size`, or any size if None. The usual case."""
    if set(map(type, segmentations)) != {dict}:
        return False
    sizes = [segmentation.get("size") for segmentation in segmentations]
    kinds = {type(segmentation.get("counts")) for segmentation in segmentations}
    if kinds != {str} or not isinstance(sizes[0], list) or list(map(type, sizes[0])) != [int, int]:
        return False
    height, width = sizes[0]
    good = height > 0 and width > 0 and height * width <= MOST_PIXELS
    return good and size in (None, (height, width)) and sizes.count(sizes[0]) == len(sizes)


def _measure(rles: list[Rle], first: int) -> list[int]:
    """Areas of compressed RLEs, whose first one has index `first`; replaces RLEs with empty runs in place.

    Checks that the runs fill the frame. Otherwise pycocotools decodes to uninitialised memory, and never
    returns from an intersection.
    """
    strings = [rle["counts"] for rle in rles]
    try:
        areas, covered, has_empty = rle_strings.measure(strings)
    except rle_strings.BrokenString as error:
        reason = str(error)
        if strings[error.place].startswith(("b'", 'b"')):
            reason = "counts is Python's text of bytes, b'…'; decode it before writing"
        raise BrokenSegmentation(first + error.place, reason) from None
    pixels = np.array([rle["size"] for rle in rles]).prod(axis=1)
    for n in np.flatnonzero(covered != pixels)[:1]:
        reason = f"its runs cover {covered[n]} pixels, its size has {pixels[n]}"
        raise BrokenSegmentation(first + int(n), reason)
    for n in np.flatnonzero(has_empty):
        height, width = rles[n]["size"]
        rles[n] = encode_runs(height, width, rle_strings.without_empty_runs(strings[n]))
    return areas.tolist()
