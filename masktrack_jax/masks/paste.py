"""Mask probabilities of boxes → masks of the frame → run lengths, on the host.

A mask at the frame's size lives only as long as it takes to encode it, so memory does not depend on
how many objects a frame has or how many frames a video has.
"""

import numpy as np
from pycocotools import mask as mask_api

# Multiplications up to which OpenBLAS keeps a product on the calling thread. Beside a busy device its
# threads wait for each other: measured 8 ms instead of 0.3 for a mask, on two cores with a training run.
SINGLE_THREADED = 1 << 18


def paste_masks(probabilities, boxes, height, width, pixel_boxes=False):
    """Return the masks (n, height, width) uint8 of probabilities (n, m, m) stretched over boxes (n, 4).

    Each `[i]` is Fortran-ordered, as run-length encoding wants it. Boxes are continuous x1, y1, x2, y2 in
    pixels and may reach out of the frame. The centre of pixel x lies at (x + 0.5 − x1) / (x2 − x1) · m − 0.5
    of the mask's cells; between cells the value is bilinear, outside the mask zero, and a pixel is set
    where it is ≥ 0.5. This is mmdet's grid_sample with align_corners=False. A box without area gives an
    empty mask.

    `pixel_boxes` is the authors' form: boxes, which lie in the frame, are cut down to whole pixels first, at
    least one, the border cells reach to the edge, and a pixel is set where it is > 0.5.
    """
    masks = np.zeros((len(boxes), width, height), np.uint8)
    for mask, probability, box in zip(masks, probabilities, boxes):
        _paste(mask, probability, box, pixel_boxes)
    return masks.transpose(0, 2, 1)


def encode_masks(masks):
    """Return the compressed RLEs of masks (n, height, width): dicts of `size` [h, w] and `counts` (str).

    Fast for what `paste_masks` returns; other layouts are copied first.
    """
    stacked = np.asfortranarray(np.transpose(masks, (1, 2, 0)), np.uint8)
    return [{"size": list(rle["size"]), "counts": rle["counts"].decode()} for rle in mask_api.encode(stacked)]


def decode_masks(rles, height, width):
    """Return the masks (n, height, width) uint8 of `encode_masks`'s RLEs; the size serves for n = 0."""
    if not rles:
        return np.zeros((0, height, width), np.uint8)
    return mask_api.decode(rles).transpose(2, 0, 1)


def encode_pasted(probabilities, boxes, height, width, pixel_boxes=False):
    """Return `encode_masks(paste_masks(...))`, holding one mask at a time instead of all."""
    return [
        encode_masks(paste_masks(probabilities[i : i + 1], boxes[i : i + 1], height, width, pixel_boxes))[0]
        for i in range(len(boxes))
    ]


def move_mask(rle, box, target):
    """Return the RLE of a mask moved and scaled, to the nearest pixel, as takes `box` (4,) to `target` (4,).

    What leaves the frame is cut off. A side without length is moved only.
    """
    height, width = rle["size"]
    columns, rows = (
        _sources(box[axis::2], target[axis::2], size) for axis, size in enumerate((width, height))
    )
    # A border of zeros, which is where pixels from outside of the frame come from.
    mask = np.pad(decode_masks([rle], height, width)[0], 1)
    return encode_masks(mask[np.ix_(rows, columns)][None])[0]


def _sources(side, target, size):
    """The pixel (size,) of a bordered axis, 0…size + 1, that each pixel comes from if `target` was `side`."""
    (start, end), (first, last) = np.asarray(side, np.float64), np.asarray(target, np.float64)
    scale = (end - start) / (last - first) if end > start and last > first else 1.0
    positions = start + (np.arange(size) + 0.5 - first) * scale
    return np.clip(np.floor(positions).astype(int) + 1, 0, size + 1)


def _paste(mask, probability, box, pixel_boxes):
    """Write one probability (m, m) over `box` into a zeroed, transposed mask (width, height)."""
    x1, y1, x2, y2 = (np.float32(value) for value in box)
    if not (pixel_boxes or (x2 > x1 and y2 > y1)):
        return
    interpolation = _pixel_interpolation if pixel_boxes else _interpolation
    threshold = np.nextafter(np.float32(0.5), np.float32(1)) if pixel_boxes else np.float32(0.5)
    cells_y, cells_x = probability.shape
    left, columns = interpolation(x1, x2, cells_x, mask.shape[0])
    top, rows = interpolation(y1, y2, cells_y, mask.shape[1])
    # Bilinear interpolation is separable: two products with thin matrices. Transposed throughout, so
    # that the comparison writes whole columns of the final mask.
    transposed = np.asarray(probability, np.float32).T
    region = mask[left : left + len(columns), top : top + len(rows)].view(bool)
    strip = max(1, SINGLE_THREADED // (rows.size or 1))
    for start in range(0, len(columns), strip):
        values = (columns[start : start + strip] @ transposed) @ rows.T
        np.greater_equal(values, threshold, out=region[start : start + strip])


def _interpolation(start, end, cells, size):
    """Return (first, weights (pixels, cells)): the pixels of 0…size−1 within a mask's reach on one axis.

    Row p holds the weights of the mask's cells at pixel first + p. Between a half and one cell outside the
    box, the bilinear value falls off to the zero padding, so the reach is half a cell wider than the box.
    """
    margin = (end - start) / (2 * cells)
    first = int(np.clip(np.floor(start - margin), 0, size))
    last = int(np.clip(np.ceil(end + margin), first, size))
    centres = np.arange(first, last, dtype=np.float32) + np.float32(0.5)
    positions = (centres - start) / (end - start) * np.float32(cells) - np.float32(0.5)
    distance = np.abs(positions[:, None] - np.arange(cells, dtype=np.float32))
    return first, np.maximum(1 - distance, 0)


def _pixel_interpolation(start, end, cells, size):
    """As `_interpolation`, for a box of whole pixels: from that of `start` to that of `end` − 1."""
    first = int(start)
    length = max(int(end - 1) - first + 1, 1)
    positions = (np.arange(length, dtype=np.float32) + 0.5) * np.float32(cells / length) - np.float32(0.5)
    positions = np.clip(positions, 0, cells - 1)[: max(size - first, 0)]
    distance = np.abs(positions[:, None] - np.arange(cells, dtype=np.float32))
    return first, np.maximum(1 - distance, 0)
