"""Draw the shapes of CVAT: boxes, polygons and masks, at their frame or between two key frames."""

import math
import pathlib
from xml.etree import ElementTree

import numpy as np

from masktrack_jax.data.convert.source import Report, note_cut
from masktrack_jax.masks.segmentations import decode_segmentation
from masktrack_jax.runtime.errors import UserError


def draw(
    path: pathlib.Path,
    now: ElementTree.Element,
    later: ElementTree.Element | None,
    moved: float,
    report: Report,
    height: int,
    width: int,
) -> np.ndarray | None:
    """The mask (height, width) of the shape `now`, `moved` (0 to 1) of the way to `later`, if any.

    None for a polygon under three points, which is counted as left out.
    """
    if now.tag == "mask":
        return _paste(path, now, height, width)
    points = _points(path, now)
    if now.tag == "polygon" and len(points) < 3:
        report.left_out["polygons with under 3 points"] += 1
        return None
    if moved and later is not None and not is_outside(path, later):
        target = _points(path, later) if later.tag == now.tag else points[:0]
        if target.shape != points.shape:
            raise UserError(
                f"{path}: between frames {now.get('frame')} and {later.get('frame')} a <{now.tag}> changes "
                "its points and the frames between are missing; export it from CVAT, which writes them"
            )
        points = points + moved * (target - points)
    if now.tag == "box":
        points = _corners(*points)
    polygon = points.ravel().tolist()
    note_cut(polygon, height, width, report)
    try:
        return decode_segmentation([polygon], height, width)
    except UserError as error:
        raise UserError(f"{path}: <{now.tag}> of frame {now.get('frame')}: {error}") from None


def is_outside(path: pathlib.Path, shape: ElementTree.Element) -> bool:
    """Whether a shape only marks that its object is out of view."""
    value = shape.get("outside", "0").lower()
    if value not in ("0", "1", "false", "true"):
        raise UserError(
            f"{path}: a <{shape.tag}> has outside={value!r:.40}, expected 0 or 1; export it again"
        )
    return value in ("1", "true")


def _points(path: pathlib.Path, shape: ElementTree.Element) -> np.ndarray:
    """The points (n, 2) of a polygon. For a box: (x1, y1), (x2, y2) and (its angle in degrees, 0)."""
    try:
        if shape.tag == "box":
            edges = [float(shape.attrib[key]) for key in ("xtl", "ytl", "xbr", "ybr")]
            points = np.array([edges[:2], edges[2:], [float(shape.get("rotation", 0)), 0]])
        else:
            pairs = [pair.split(",") for pair in shape.attrib["points"].split(";")]
            points = np.array(pairs, float)
            if points.shape[1] != 2:
                raise ValueError("not pairs")
        if not np.isfinite(points).all():
            raise ValueError("not finite")
    except (KeyError, ValueError) as error:
        where = f"<{shape.tag}> of frame {shape.get('frame')}"
        raise UserError(
            f"{path}: the points of a {where} cannot be read ({error!s:.80}); export it again"
        ) from None
    return points


def _corners(first: np.ndarray, second: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """The corners (4, 2) of a box from `_points`, rotated clockwise about its centre as in CVAT."""
    centre = (first + second) / 2
    offsets = np.array([first, (second[0], first[1]), second, (first[0], second[1])]) - centre
    cos, sin = math.cos(math.radians(angle[0])), math.sin(math.radians(angle[0]))
    return centre + offsets @ np.array([[cos, sin], [-sin, cos]])


def _paste(path: pathlib.Path, shape: ElementTree.Element, height: int, width: int) -> np.ndarray:
    """Decode a <mask> to (height, width): row-wise run lengths in a box, background first."""
    try:
        left, top, w, h = (int(shape.attrib[key]) for key in ("left", "top", "width", "height"))
        runs = np.array(shape.attrib["rle"].split(","), int)
        inside = min(left, top, w, h) >= 0 and left + w <= width and top + h <= height
        if not inside or runs.min() < 0 or runs.max() > w * h or runs.sum() != w * h:
            raise ValueError(f"{runs.sum()} pixels in a box of {w}x{h} at {left}, {top}")
    except (KeyError, ValueError, OverflowError) as error:
        raise UserError(
            f"{path}: the <mask> of frame {shape.get('frame')} cannot be read ({error!s:.80}); "
            "export it again"
        ) from None
    mask = np.zeros((height, width), bool)
    mask[top : top + h, left : left + w] = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(h, w)
    return mask
