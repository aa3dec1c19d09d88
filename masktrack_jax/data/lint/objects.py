"""What can be wrong with one annotated object: its masks, and the boxes and areas beside them."""

import math

import numpy as np

from masktrack_jax.masks.segmentations import compact_segmentation, segmentation_area, segmentation_box

# Boxes are kept in whole pixels by some tools, and counted to the last pixel instead of past it by others.
BOX_TOLERANCE = 1.0  # pixels, of each edge


def check_object(record, video, where, findings):
    """Add to `findings` what is wrong with an annotation apart from its ids.

    `video` is its video's record, None if there is no such: then the masks are not looked at.
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
            # 1 is what the published files of YouTube-VIS have in every annotation.
            kind = "wrong lengths" if key == "length" else "sizes that disagree"
            findings.error(kind, f"{where}: `{key}` {record[key]!r:.40}, its video has {stated}")
    values = {key: _per_frame(record, key, length, where, findings) for key in ("bboxes", "areas")}
    segmentations = _per_frame(record, "segmentations", length, where, findings)
    if segmentations is None:
        return
    seen = False
    for frame, segmentation in enumerate(segmentations):
        box, area = (values[key][frame] if values[key] else None for key in ("bboxes", "areas"))
        here = f"{where}, frame {frame}"
        if segmentation is None:
            for key, value in (("box", box), ("area", area)):
                if value:
                    findings.error(
                        "boxes or areas without a mask", f"{here}: {key} {value!r:.60}, but no segmentation"
                    )
            continue
        compact, problem = compact_segmentation(segmentation, video["height"], video["width"])
        if problem:
            sizes = isinstance(segmentation, dict) and segmentation.get("size") != [
                video["height"],
                video["width"],
            ]
            kind = "masks whose size is not their video's" if sizes else "masks that cannot be read"
            findings.error(kind, f"{here} {problem}")
            seen = True  # one fault, not two
            continue
        pixels = _check_mask(compact, box, area, values, video, here, findings)
        seen = seen or pixels > 0
    if not seen:
        findings.error("objects without a pixel in any frame", where)


def _per_frame(record, key, length, where, findings):
    """The record's list `key` if it has an entry a frame, else None; None is fine for boxes and areas."""
    values = record.get(key)
    if values is None:
        if key == "segmentations" and key in record:
            findings.error("missing keys", f"{where}: `{key}` is null")
        return None
    if not isinstance(values, list):
        findings.error("wrong lengths", f"{where}: `{key}` is no list")
        return None
    if len(values) != length:
        findings.error(
            "wrong lengths", f"{where}: {len(values)} entries in `{key}`, its video has {length} frames"
        )
        return None
    return values


def _check_mask(segmentation, box, area, stated, video, here, findings):
    """One readable mask with its box and area; returns its number of pixels."""
    height, width = video["height"], video["width"]
    if isinstance(segmentation, list):
        _check_polygons(segmentation, height, width, here, findings)
    pixels = segmentation_area(segmentation, height, width)
    if pixels == 0:
        findings.note("masks without a pixel", f"{here}: better null")
    if stated["bboxes"]:
        _check_box(box, segmentation, pixels, height, width, here, findings)
    if stated["areas"]:
        if not _is_number(area) or area < 0:
            findings.error("areas that are not numbers", f"{here}: area {area!r:.40}")
        elif abs(area - pixels) > _area_tolerance(segmentation, pixels, height, width):
            findings.error(
                "areas that do not fit their masks", f"{here}: area {area:g}, the mask has {pixels:g} pixels"
            )
    return pixels


def _check_polygons(polygons, height, width, here, findings):
    """Polygons that leave the frame by more than a pixel."""
    points = np.array([value for polygon in polygons for value in polygon], float).reshape(-1, 2)
    low, high = points.min(0), points.max(0)
    if not (np.all(low >= -1) and np.all(high <= (width + 1, height + 1))):
        findings.error(
            "masks out of the frame",
            f"{here}: polygon from ({low[0]:g}, {low[1]:g}) to ({high[0]:g}, {high[1]:g}) "
            f"in a frame of {width}x{height} (width x height)",
        )


def _check_box(box, segmentation, pixels, height, width, here, findings):
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        findings.error("boxes that are not x, y, width, height", f"{here}: box {box!r:.60}")
        return
    edges = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
    if min(box[2:]) < 0:
        findings.error("boxes that are not x, y, width, height", f"{here}: box {box}, of negative size")
    elif (
        min(edges[:2]) < -BOX_TOLERANCE
        or edges[2] > width + BOX_TOLERANCE
        or edges[3] > height + BOX_TOLERANCE
    ):
        findings.error(
            "boxes out of the frame",
            f"{here}: box {box} in a frame of {width}x{height} (width x height)",
        )
    elif pixels:
        x, y, w, h = segmentation_box(segmentation, height, width)
        if max(abs(a - b) for a, b in zip(edges, (x, y, x + w, y + h))) > BOX_TOLERANCE:
            findings.error(
                "boxes that do not fit their masks", f"{here}: box {box}, the mask's is {[x, y, w, h]}"
            )


def _area_tolerance(segmentation, pixels, height, width):
    """Pixels by which a stated area may differ: files of polygons state the polygon's, not the mask's."""
    tolerance = 1 + 0.01 * pixels
    if isinstance(segmentation, list):
        _, _, w, h = segmentation_box(segmentation, height, width)
        tolerance += w + h
    return tolerance


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
