"""Check one annotated object: the boxes and areas beside its masks."""

from collections.abc import Sequence

import numpy as np

from masktrack_jax.data.labels import ABSENT, BROKEN
from masktrack_jax.data.values import shown
from masktrack_jax.data.vis import BOX_TOLERANCE
from masktrack_jax.masks.rle import Rle, mask_box
from masktrack_jax.runtime.findings import Findings


def check_object(
    record: dict, original: dict, pixels: list[int], video: dict, where: str, findings: Findings
) -> None:
    """Add the errors of an annotation of `LabelsFile`, called `where`: what contradicts its masks."""
    for key in ("length", "height", "width"):
        if key in record and record[key] != video[key] and not (key == "length" and record[key] == 1):
            # The published files of YouTube-VIS have 1 in every annotation.
            kind = "wrong lengths" if key == "length" else "sizes that disagree"
            findings.error(kind, f"{where}: `{key}` {shown(record[key])}, its video has {video[key]}")
    boxes, areas = record.get("bboxes"), record.get("areas")
    for frame, number in enumerate(pixels):
        here, segmentation = f"{where}, frame {frame}", original["segmentations"][frame]
        if number == ABSENT:
            if segmentation is not None:
                findings.note("absent masks not written as null", f"{here}: []")
            for key, values in (("box", boxes), ("area", areas)):
                if values and values[frame]:
                    example = f"{here}: {key} {shown(values[frame])}, but no segmentation"
                    findings.error("boxes or areas without a mask", example)
        elif number != BROKEN:
            rle = record["segmentations"][frame]
            if isinstance(segmentation, list):
                _check_polygons(segmentation, video["height"], video["width"], here, findings)
            if boxes:
                _check_box(boxes[frame], rle, number, here, findings)
            if areas:
                _check_area(areas[frame], segmentation, rle, number, here, findings)
    if not any(number > 0 or number == BROKEN for number in pixels):
        findings.error("objects without a pixel in any frame", where)


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


def _check_box(box: list[float] | None, rle: Rle, pixels: int, here: str, findings: Findings) -> None:
    """Report a box that is invalid, extends beyond the frame, or does not fit its mask."""
    height, width = rle["size"]
    if box is None:
        findings.error("boxes that are not x, y, width, height", f"{here}: box null")
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
    area: float | None, segmentation: object, rle: Rle, pixels: int, here: str, findings: Findings
) -> None:
    """Report an area that is not a number, or that differs from the mask's by more than 1 % and one pixel.

    The area of a polygon may also differ from the area of its mask by the length of its outline.
    """
    tolerance = 1 + 0.01 * pixels
    if isinstance(segmentation, list):
        tolerance += sum(mask_box(rle)[2:])
    if area is None or area < 0:
        findings.error("areas that are not numbers", f"{here}: area {shown(area)}")
    elif abs(area - pixels) > tolerance:
        example = f"{here}: area {area:g}, the mask has {pixels} pixels"
        findings.error("areas that do not fit their masks", example)
