"""Check one annotated object: its masks, and the boxes and areas beside them."""

import math
from collections.abc import Sequence
from typing import TypeGuard

import numpy as np

from masktrack_jax.masks.rle import Rle, mask_box
from masktrack_jax.masks.segmentations import BrokenSegmentation, read_each
from masktrack_jax.runtime.findings import Findings

# Some tools round boxes to whole pixels; others end them at the last pixel instead of after it.
BOX_TOLERANCE = 1.0  # pixels, of each edge


def check_object(record: dict, video: dict | None, where: str, findings: Findings) -> None:
    """Add all errors of an annotation to `findings`, except errors in its ids.

    `video` is the record of its video; without it, the masks are not checked.
    """
    if "segmentations" not in record:
        findings.error("missing keys", f"{where} has no `segmentations`")
    if record.get("iscrowd", 0) not in (0, 1):
        findings.error("crowd flags other than 0 and 1", f"{where}: iscrowd {record['iscrowd']!r:.40}")
    if video is None:
        return
    length = len(video["file_names"])
    for key, stated in (("length", length), ("height", video["height"]), ("width", video["width"])):
        if key in record and record[key] != stated and not (key == "length" and record[key] == 1):
            # The published files of YouTube-VIS have 1 in every annotation.
            kind = "wrong lengths" if key == "length" else "sizes that disagree"
            findings.error(kind, f"{where}: `{key}` {record[key]!r:.40}, its video has {stated}")
    boxes, areas, segmentations = (
        _per_frame(record, key, length, where, findings) for key in ("bboxes", "areas", "segmentations")
    )
    if segmentations is None:
        return
    shown = [frame for frame, segmentation in enumerate(segmentations) if segmentation is not None]
    size = video["height"], video["width"]
    masks = dict(zip(shown, read_each([segmentations[frame] for frame in shown], size)))
    seen = False
    for frame, segmentation in enumerate(segmentations):
        here = f"{where}, frame {frame}"
        mask = masks.get(frame)
        if mask is None:
            for key, values in (("box", boxes), ("area", areas)):
                if values and values[frame]:
                    example = f"{here}: {key} {values[frame]!r:.60}, but no segmentation"
                    findings.error("boxes or areas without a mask", example)
        elif isinstance(mask, BrokenSegmentation):
            other_size = isinstance(segmentation, dict) and segmentation.get("size") != list(size)
            kind = "masks whose size is not their video's" if other_size else "masks that cannot be read"
            findings.error(kind, f"{here}: {mask}")
            seen = True  # so that it is not reported twice
        else:
            rle, pixels = mask
            if isinstance(segmentation, list):
                _check_polygons(segmentation, *size, here, findings)
            if pixels == 0:
                findings.note("masks without a pixel", f"{here}: write null instead")
            if boxes:
                _check_box(boxes[frame], rle, pixels, here, findings)
            if areas:
                _check_area(areas[frame], segmentation, rle, pixels, here, findings)
            seen = seen or pixels > 0
    if not seen:
        findings.error("objects without a pixel in any frame", where)


def _per_frame(record: dict, key: str, length: int, where: str, findings: Findings) -> list | None:
    """The record's list `key` if it has an entry per frame, else None; boxes and areas are optional."""
    values = record.get(key)
    if values is None:
        if key == "segmentations" and key in record:
            findings.error("missing keys", f"{where}: `{key}` is null")
        return None
    if not isinstance(values, list):
        findings.error("wrong lengths", f"{where}: `{key}` is not a list")
        return None
    if len(values) != length:
        findings.error(
            "wrong lengths", f"{where}: {len(values)} entries in `{key}`, its video has {length} frames"
        )
        return None
    return values


def _check_polygons(
    polygons: list[list[float]], height: int, width: int, here: str, findings: Findings
) -> None:
    """Report polygons that extend beyond the frame by more than a pixel."""
    points = np.array([value for polygon in polygons for value in polygon], float).reshape(-1, 2)
    low, high = points.min(0), points.max(0)
    if not (np.all(low >= -1) and np.all(high <= (width + 1, height + 1))):
        findings.error(
            "masks out of the frame",
            f"{here}: polygon from ({low[0]:g}, {low[1]:g}) to ({high[0]:g}, {high[1]:g}) "
            f"in a frame of {width}x{height} (width x height)",
        )


def _check_box(box: object, rle: Rle, pixels: int, here: str, findings: Findings) -> None:
    """Report a box that is invalid, extends beyond the frame, or does not fit its mask."""
    height, width = rle["size"]
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        findings.error("boxes that are not x, y, width, height", f"{here}: box {box!r:.60}")
        return
    if min(box[2:]) < 0:
        findings.error("boxes that are not x, y, width, height", f"{here}: box {box}, with negative size")
        return
    edges = _edges(box)
    inside = min(edges[:2]) >= -BOX_TOLERANCE
    if not (inside and edges[2] <= width + BOX_TOLERANCE and edges[3] <= height + BOX_TOLERANCE):
        example = f"{here}: box {box} in a frame of {width}x{height} (width x height)"
        findings.error("boxes out of the frame", example)
    elif pixels:
        wanted = mask_box(rle)
        if max(abs(a - b) for a, b in zip(edges, _edges(wanted))) > BOX_TOLERANCE:
            example = f"{here}: box {box}, the mask's is {wanted}"
            findings.error("boxes that do not fit their masks", example)


def _edges(box: Sequence[float]) -> list[float]:
    """Convert x, y, width, height to x1, y1, x2, y2."""
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def _check_area(
    area: object, segmentation: object, rle: Rle, pixels: int, here: str, findings: Findings
) -> None:
    """Report an area that is not a number, or that differs from the mask's by more than 1 % and one pixel.

    The area of a polygon may also differ from the area of its mask by the length of its outline.
    """
    tolerance = 1 + 0.01 * pixels
    if isinstance(segmentation, list):
        tolerance += sum(mask_box(rle)[2:])
    if not _is_number(area) or area < 0:
        findings.error("areas that are not numbers", f"{here}: area {area!r:.40}")
    elif abs(area - pixels) > tolerance:
        example = f"{here}: area {area:g}, the mask has {pixels} pixels"
        findings.error("areas that do not fit their masks", example)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
