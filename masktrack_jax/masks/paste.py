"""Paste the mask probabilities of boxes into the frame and encode them as run lengths, on the host.

Only one mask at a time is held at the frame's size, so memory does not depend on the number of objects in a
frame or of frames in a video.
"""

import numpy as np

from masktrack_jax.masks.rle import Rle, decode_mask, encode_mask

# OpenBLAS computes a product of up to this many multiplications on the calling thread. While the device is
# busy, OpenBLAS's threads wait for each other: 8 ms per mask instead of 0.3, on two cores beside a training
# run.
SINGLE_THREADED = 1 << 18


def paste_masks(
    probabilities: np.ndarray, boxes: np.ndarray, height: int, width: int, pixel_boxes: bool = False
) -> np.ndarray:
    """Paste probabilities (n, m, m) into boxes (n, 4) and threshold them: masks (n, height, width) uint8.

    Each `[i]` is Fortran-ordered for run-length encoding. Boxes are continuous x1, y1, x2, y2 in pixels and
    may extend beyond the frame. The centre of pixel x is sampled at (x + 0.5 − x1) / (x2 − x1) · m − 0.5 in
    cells of the mask, by bilinear interpolation with zeros outside the mask. A pixel is set if its value is
    ≥ 0.5. This is mmdet's grid_sample with align_corners=False. A box without area gives an empty mask.

    `pixel_boxes` is the authors' form: boxes are inside the frame and are first cropped to whole pixels, at
    least one; the border cells extend to the edge; a pixel is set if its value is > 0.5.
    """
    masks = np.zeros((len(boxes), width, height), np.uint8)
    for mask, probability, box in zip(masks, probabilities, boxes):
        _paste(mask, probability, box, pixel_boxes)
    return masks.transpose(0, 2, 1)


def encode_pasted(
    probabilities: np.ndarray, boxes: np.ndarray, height: int, width: int, pixel_boxes: bool = False
) -> list[Rle]:
    """`encode_masks(paste_masks(...))`, with one mask at a time in memory."""
    return [
        encode_mask(paste_masks(probabilities[i : i + 1], boxes[i : i + 1], height, width, pixel_boxes)[0])
        for i in range(len(boxes))
    ]


def move_mask(rle: Rle, box: np.ndarray, target: np.ndarray) -> Rle:
    """Move and scale a mask by the map from `box` (4,) to `target` (4,), to the nearest pixel.

    Pixels outside the frame are dropped. A side of length zero is moved but not scaled.
    """
    height, width = rle["size"]
    columns, rows = (
        _sources(box[axis::2], target[axis::2], size) for axis, size in enumerate((width, height))
    )
    mask = np.pad(decode_mask(rle), 1)  # pixels from outside the frame come from this border of zeros
    return encode_mask(mask[np.ix_(rows, columns)])


def _sources(side: np.ndarray, target: np.ndarray, size: int) -> np.ndarray:
    """The source index of each pixel (size,) along an axis on which `side` moves to `target`.

    Indices are 0 to size + 1, since the axis has a border of one pixel at each end.
    """
    (start, end), (first, last) = np.asarray(side, np.float64), np.asarray(target, np.float64)
    scale = (end - start) / (last - first) if end > start and last > first else 1.0
    positions = start + (np.arange(size) + 0.5 - first) * scale
    return np.clip(np.floor(positions).astype(int) + 1, 0, size + 1)


def _paste(mask: np.ndarray, probability: np.ndarray, box: np.ndarray, pixel_boxes: bool) -> None:
    """Write one probability (m, m) over `box` into a zeroed, transposed mask (width, height)."""
    x1, y1, x2, y2 = (np.float32(value) for value in box)
    if not (pixel_boxes or (x2 > x1 and y2 > y1)):
        return
    interpolation = _pixel_interpolation if pixel_boxes else _interpolation
    threshold = np.nextafter(np.float32(0.5), np.float32(1)) if pixel_boxes else np.float32(0.5)
    cells_y, cells_x = probability.shape
    left, columns = interpolation(x1, x2, cells_x, mask.shape[0])
    top, rows = interpolation(y1, y2, cells_y, mask.shape[1])
    # Bilinear interpolation is separable, so it is two products with thin matrices. Arrays are transposed, so
    # that the comparison writes whole columns of the final mask.
    transposed = np.asarray(probability, np.float32).T
    region = mask[left : left + len(columns), top : top + len(rows)].view(bool)
    strip = max(1, SINGLE_THREADED // (rows.size or 1))
    for start in range(0, len(columns), strip):
        values = (columns[start : start + strip] @ transposed) @ rows.T
        np.greater_equal(values, threshold, out=region[start : start + strip])


def _interpolation(start: np.float32, end: np.float32, cells: int, size: int) -> tuple[int, np.ndarray]:
    """The first pixel of 0…size−1 that a mask covers on one axis, and weights (pixels, cells).

    Row p holds the weights of the mask's cells at pixel first + p. The bilinear value decreases to the zero
    padding over half a cell outside the box, so the mask covers half a cell more than the box.
    """
    margin = (end - start) / (2 * cells)
    first = int(np.clip(np.floor(start - margin), 0, size))
    last = int(np.clip(np.ceil(end + margin), first, size))
    centres = np.arange(first, last, dtype=np.float32) + np.float32(0.5)
    positions = (centres - start) / (end - start) * np.float32(cells) - np.float32(0.5)
    distance = np.abs(positions[:, None] - np.arange(cells, dtype=np.float32))
    return first, np.maximum(1 - distance, 0)


def _pixel_interpolation(start: np.float32, end: np.float32, cells: int, size: int) -> tuple[int, np.ndarray]:
    """As `_interpolation`, for a box of whole pixels: from the pixel of `start` to the pixel of `end` − 1."""
    first = int(start)
    length = max(int(end - 1) - first + 1, 1)
    positions = (np.arange(length, dtype=np.float32) + 0.5) * np.float32(cells / length) - np.float32(0.5)
    positions = np.clip(positions, 0, cells - 1)[: max(size - first, 0)]
    distance = np.abs(positions[:, None] - np.arange(cells, dtype=np.float32))
    return first, np.maximum(1 - distance, 0)
