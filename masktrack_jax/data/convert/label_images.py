"""Label images: PNGs whose pixel values are object numbers. Pictures and smoothed masks are refused."""

import pathlib
from typing import NamedTuple

import numpy as np

from masktrack_jax.data.convert.source import size_error
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.video.images import Size, open_image, pages_of

VOID = 255  # pixels that are neither an object nor background

MOST_OBJECTS = 100  # numbers in one image; no frame of the data sets has as many objects
# Of the pixels at an edge, the share between a lower and a higher value, or without an equal neighbour.
# Object numbers have below 1 %, where they crowd up to 9 %. Numbers that were smoothed, or resized with
# interpolation, have above 13 %, JPEG-compressed ones above 24 %.
MOST_BLURRED = 0.1
# Thin objects over others can look like that, so there must be many such pixels. Fewer are enough if the
# values do not count objects, and several of them are only at edges.
MANY_BLURRED = 150  # pixels
FEW_BLURRED = 12
FEWEST_AT_EDGES = 4  # values
# Of a number's pixels, the share without an equal neighbour; high in the noise of the best JPEG quality.
MOST_LONELY = 0.2
FEWEST_LONELY = 16  # pixels

_FACTORS = {"L;2": 85, "L;4": 17}  # PIL stretches grey values of 2 and 4 bits to 0…255
_CURE = "save object numbers as PNG, and resize them with nearest neighbour"


class Edges(NamedTuple):
    """The pixels (n,) beside another value: whether each is blurred or lonely (see above), and its value.

    `only` are the values that no block of 3x3 pixels has.
    """

    blurred: np.ndarray
    lonely: np.ndarray
    values: np.ndarray
    only: np.ndarray


class LabelImage(NamedTuple):
    """The object numbers (height, width) uint8, and the colours by number of a palette image, else none."""

    numbers: np.ndarray
    colours: list[tuple[int, ...]]


def read_label_image(path: pathlib.Path, frame: pathlib.Path, size: Size) -> LabelImage:
    """Read a palette or grey PNG, whose `frame` has this size. Raises UserError."""
    with open_image(path) as image:
        if image.mode not in ("P", "L", "1"):
            raise UserError(
                f"{path}: is {image.mode}, not a palette PNG; save one channel of 8-bit object numbers"
            )
        if len(pages := pages_of(image)) > 1:
            raise UserError(
                f"{path}: holds {len(pages)} pictures, expected one; save each as a file of its own"
            )
        if (image.height, image.width) != size:  # before the pixels take memory
            raise size_error(f"{path}: is", (image.height, image.width), size, frame)
        tile = getattr(image, "tile", [])  # how the file holds the pixels
        factor = _FACTORS.get(tile[0][3], 1) if tile else 1
        numbers = np.array(image).astype(np.uint8) // factor
        flat = (image.getpalette() or []) if image.mode == "P" else []
    _check(path, numbers)
    return LabelImage(numbers, list(zip(flat[::3], flat[1::3], flat[2::3])))


def _check(path: pathlib.Path, numbers: np.ndarray) -> None:
    """Raise UserError unless the values can be object numbers."""
    areas = np.bincount(numbers.ravel(), minlength=256)  # by value
    objects = np.count_nonzero(areas[1:])
    if objects > MOST_OBJECTS:
        raise UserError(
            f"{path}: has {objects} values besides 0, more than a frame has objects ({MOST_OBJECTS}), "
            f"so it is a picture or was smoothed; {_CURE}"
        )
    if objects < 2:
        return
    edges = _edges(numbers)
    blurred = int((edges.blurred | edges.lonely).sum())
    counted = np.flatnonzero(areas[:VOID])[-1] <= 2 * objects + 10
    few = FEW_BLURRED if not counted and len(edges.only) >= FEWEST_AT_EDGES else MANY_BLURRED
    if blurred >= max(few, MOST_BLURRED * len(edges.blurred)):
        raise UserError(
            f"{path}: {blurred} of {len(edges.blurred)} pixels at edges have values between their "
            f"neighbours' ({objects} values besides 0), so it was smoothed, resized or "
            f"JPEG-compressed; {_CURE}"
        )
    lonely = np.bincount(edges.values[edges.lonely], minlength=256)
    scattered = np.flatnonzero((lonely >= FEWEST_LONELY) & (lonely >= MOST_LONELY * areas))
    if len(scattered):
        raise UserError(
            f"{path}: {lonely[scattered[0]]} of {areas[scattered[0]]} pixels of value {scattered[0]} are "
            f"single specks, so it was JPEG-compressed; {_CURE}"
        )


def _edges(numbers: np.ndarray) -> Edges:
    """Look at every pixel that has a neighbour, of eight, with another value."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(numbers, 1, mode="edge"), (3, 3))
    low, high = _over(numbers, np.minimum), _over(numbers, np.maximum)
    # Pixels in a block of 3x3 with one value belong to a region, not to its edge.
    block = _over((low == high).astype(np.uint8), np.maximum).astype(bool)
    rows, columns = np.nonzero(low != high)
    values = numbers[rows, columns]
    equal = (windows[rows, columns] == values[:, None, None]).sum(axis=(1, 2)) - 1
    inside = (low[rows, columns] < values) & (values < high[rows, columns])
    # At the border, padding repeats the pixel itself.
    border = (rows == 0) | (columns == 0) | (rows == numbers.shape[0] - 1) | (columns == numbers.shape[1] - 1)
    only = np.setdiff1d(values, numbers[block])
    return Edges(inside & ~block[rows, columns], (equal == 0) & ~border, values, only)


def _over(values: np.ndarray, reduce: np.ufunc) -> np.ndarray:
    """The minimum or maximum of every pixel and its eight neighbours."""
    padded = np.pad(values, 1, mode="edge")
    rows = reduce(reduce(padded[:-2], padded[1:-1]), padded[2:])
    return reduce(reduce(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
