"""Segmentations as annotation files hold them: RLE with counts as a list or as text, or polygons."""

import numpy as np

from masktrack_jax.masks.rle_strings import MOST_PIXELS
from masktrack_jax.runtime.errors import UserError

FAR_AWAY = 1e6  # pixels; for an outline that long pycocotools takes 100 MB, for a longer one all there is


def compact_segmentation(segmentation, height, width):
    """Check a raw segmentation of a frame of this size and make it small: (segmentation, problem).

    RLE whose counts are a list becomes the equal compressed RLE (a data set's lists take gigabytes); anything
    else stays as it is. `problem` is None or says in a few words what is wrong.
    """
    if isinstance(segmentation, list):
        for polygon in segmentation:
            if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
                return None, "has a polygon that is not a list of three or more x, y pairs"
            if not all(isinstance(value, int | float) for value in polygon):
                return None, "has a polygon with something other than numbers"
            if not all(abs(value) < FAR_AWAY for value in polygon):  # NaN neither
                return None, "has a polygon far out of any frame"
            if outline_length(polygon) > FAR_AWAY:
                return None, "has a polygon whose outline is longer than a frame has room for"
        return segmentation, None if segmentation else "has an empty list of polygons"
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        return None, "has a segmentation that is neither RLE with `size` and `counts` nor polygons"
    if not isinstance(segmentation["size"], list | tuple) or list(segmentation["size"]) != [height, width]:
        return (
            None,
            f"has RLE of size {segmentation['size']} but its video is {[height, width]} (height, width)",
        )
    if height * width > MOST_PIXELS:
        return None, f"has RLE of {height} x {width} pixels, more than any camera's"
    counts = segmentation["counts"]
    if isinstance(counts, list):
        return _compress(counts, height, width)
    if not isinstance(counts, str | bytes) or not counts:
        return None, "has RLE whose `counts` are neither a list nor text"
    runs = _run_lengths(counts)
    if runs is None or runs.min() < 0 or runs.sum() != height * width:
        return None, f"has compressed RLE `counts` that do not describe {height} x {width} pixels"
    return segmentation, None


def outline_length(polygon):
    """The length of a closed polygon x, y, x, y, … in pixels, of each side the longer of its two extents."""
    corners = np.array(polygon[: len(polygon) // 2 * 2], float).reshape(-1, 2)
    return float(np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1).sum())


def _run_lengths(counts):
    """The run lengths of compressed counts: (N,) int64, or None when they are cut off or no such code.

    The code of COCO's maskApi: five bits a character from 48 on, the sixth says that more follow, and from
    the fourth run on each is stored as its difference from the one two before. Checked here because
    pycocotools returns uninitialised memory for counts that add up to too little.
    """
    text = counts.encode("ascii", "replace") if isinstance(counts, str) else counts
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(codes & 0x20 == 0)
    if codes.min() < 0 or codes.max() > 0x3F or len(ends) == 0 or ends[-1] != len(codes) - 1:
        return None
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends + 1 - starts
    if lengths.max() > 7:  # more than 32 bits
        return None
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((codes & 0x1F) << shifts, starts)
    runs -= np.where(codes[ends] & 0x10, 1 << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def _compress(counts, height, width):
    """Compressed RLE of a list of run lengths: (RLE, problem)."""
    from pycocotools import mask as coco_mask

    if not all(isinstance(count, int) and count >= 0 for count in counts):
        return None, "has RLE `counts` that are not all integers of 0 or more"
    if sum(counts) != height * width:
        return None, f"has RLE `counts` that add up to {sum(counts)}, not to {height} x {width} pixels"
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}, None


def to_rle(segmentation, height, width):
    """One compressed RLE of a raw segmentation. Raises UserError when it is not a sound one of this size."""
    from pycocotools import mask as coco_mask

    compact, problem = compact_segmentation(segmentation, height, width)
    if problem:
        raise UserError(f"a frame of {height}x{width} {problem}; correct the annotations file")
    if isinstance(compact, list):
        return coco_mask.merge(coco_mask.frPyObjects(compact, height, width))
    return compact


def decode_segmentation(segmentation, height, width):
    """The mask of a segmentation: (height, width) uint8 of 0 and 1.

    Takes RLE with counts as a list, RLE with compressed counts, or a list of polygons (x, y, x, y, … in
    pixels). Raises UserError, in one line, when it is none of these or not of this size.
    """
    from pycocotools import mask as coco_mask

    rle = to_rle(segmentation, height, width)
    try:
        return np.ascontiguousarray(coco_mask.decode(rle))
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"a frame of {height}x{width} has RLE that cannot be decoded ({reason}); "
            "correct the annotations file"
        ) from None


def segmentation_area(segmentation, height, width):
    """The number of pixels of a segmentation's mask."""
    from pycocotools import mask as coco_mask

    return float(coco_mask.area(to_rle(segmentation, height, width)))


def segmentation_box(segmentation, height, width):
    """The box around a segmentation's mask as annotation files have it: [x, y, width, height] in pixels."""
    from pycocotools import mask as coco_mask

    return coco_mask.toBbox(to_rle(segmentation, height, width)).tolist()
