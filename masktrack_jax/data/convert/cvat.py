"""CVAT: XML files in the format "CVAT for video 1.1", whose <track>s contain boxes, polygons or masks.

    annotations.xml    images/frame_000000.png

CVAT writes every frame of a track. In a file with key frames only, frames between are filled as in CVAT:
boxes and polygons with the same number of points are interpolated, masks are repeated, `outside` ends a
track.
"""

import functools
import itertools
import math
import pathlib
from collections import Counter
from collections.abc import Callable
from typing import NoReturn, TypeVar
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from masktrack_jax.data.convert.writer import (
    Clip,
    ObjectTrack,
    Source,
    encode_seen,
    list_images,
    number_categories,
)
from masktrack_jax.masks.rle import Rle
from masktrack_jax.masks.segmentations import decode_segmentation
from masktrack_jax.runtime.errors import UserError

SHAPES = ("box", "polygon", "mask")

Shapes = dict[int, ElementTree.Element]  # by the index of their image, in order
Value = TypeVar("Value")


def read(input_path: str | pathlib.Path, images: str | pathlib.Path | None = None) -> Source:
    """Read an XML file, or the folder of an unpacked export, as one clip.

    The frames are the images in `images` (by default `images` beside the file), in order. Raises UserError.
    """
    path = pathlib.Path(input_path)
    path = path / "annotations.xml" if path.is_dir() else path
    root = _parse(path)
    folder = path.parent / "images" if images is None else pathlib.Path(images)
    frames = list_images(folder)
    number_of = _frame_numbers(path, root, frames)
    left_out: Counter[str] = Counter()
    objects = []
    for element in root.findall("track"):
        shapes = _shapes(path, element, number_of, left_out)
        if shapes:
            objects.append((_attribute(path, element, "label", str), shapes))
    categories, ids = number_categories([*_labels(root), *(label for label, _ in objects)])
    name = path.resolve().parent.name if path.stem == "annotations" else path.stem
    tracks = functools.partial(_tracks, path, objects, ids, len(frames))
    return Source(categories, [Clip(name, tuple((x.name, x) for x in frames), tracks)], left_out)


def _parse(path: pathlib.Path) -> ElementTree.Element:
    """The root of the XML. Rejects a document type, because its entities could expand without limit."""

    def refuse(*_: object) -> NoReturn:
        raise UserError(f"{path}: has a document type (DOCTYPE), which no CVAT export has; remove it")

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    try:
        content = path.read_bytes()
        parser.Parse(content, True)
        root = ElementTree.fromstring(content)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check --input") from None
    except (expat.ExpatError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{path}: is not valid XML ({error}); export it again") from None
    if root.tag != "annotations" or root.find("image") is not None:
        raise UserError(f"{path}: is not a video export; export the task as `CVAT for video 1.1`")
    if len({element.get("task_id") for element in root.findall("track")}) > 1:
        raise UserError(f"{path}: holds several tasks; export each task by itself")
    return root


def _meta(root: ElementTree.Element, name: str) -> str | None:
    """The text of an entry in the metadata of the task, job or project."""
    for kind in ("task", "job", "project"):
        text = root.findtext(f"meta/{kind}/{name}")
        if text:
            return text.strip()
    return None


def _labels(root: ElementTree.Element) -> list[str]:
    """The labels in the metadata, used or not, without the parts of skeletons."""
    labels = [
        label for kind in ("task", "job", "project") for label in root.iterfind(f"meta/{kind}/labels/label")
    ]
    names = [label.findtext("name") for label in labels if not label.findtext("parent")]
    return [name.strip() for name in names if name]


def _frame_numbers(
    path: pathlib.Path, root: ElementTree.Element, frames: list[pathlib.Path]
) -> dict[int, int]:
    """Map each frame number of the XML to the index of its image."""
    try:
        size = int(_meta(root, "size") or len(frames))
        start = int(_meta(root, "start_frame") or 0)
        step = int((_meta(root, "frame_filter") or "step=1").removeprefix("step="))
    except ValueError as error:
        raise UserError(f"{path}: its <meta> cannot be read ({error}); export it again") from None
    if size != len(frames):
        raise UserError(
            f"{path}: has {size} frames but there are {len(frames)} images; give their folder as --images"
        )
    return {start + place * step: place for place in range(size)}


def _attribute(
    path: pathlib.Path, element: ElementTree.Element, name: str, kind: Callable[[str], Value]
) -> Value:
    try:
        return kind(element.attrib[name])
    except (KeyError, ValueError):
        found = repr(element.get(name))
        raise UserError(
            f"{path}: a <{element.tag}> has {name}={found}, which is not valid; export it again"
        ) from None


def _shapes(
    path: pathlib.Path, track: ElementTree.Element, number_of: dict[int, int], left_out: Counter[str]
) -> Shapes:
    """The shapes of a track that have an area; the others are counted in `left_out`."""
    shapes: Shapes = {}
    for element in track:
        if element.tag == "attribute":
            continue
        if element.tag not in SHAPES:
            left_out[f"shapes that have no area here ({element.tag})"] += 1
            continue
        number = _attribute(path, element, "frame", int)
        if number not in number_of:
            # CVAT ends a track with an outside shape, possibly one frame after the last.
            if element.get("outside") == "1":
                continue
            raise UserError(f"{path}: track {track.get('id')}: frame {number} has no image; check --images")
        if number_of[number] in shapes:
            raise UserError(f"{path}: track {track.get('id')}: frame {number} has two shapes; keep one")
        shapes[number_of[number]] = element
    return dict(sorted(shapes.items()))


def _tracks(
    path: pathlib.Path,
    objects: list[tuple[str, Shapes]],
    ids: dict[str, int],
    length: int,
    height: int,
    width: int,
) -> list[ObjectTrack]:
    """One track for each (label, shapes)."""
    tracks = []
    for label, shapes in objects:
        masks: list[Rle | None] = [None] * length
        places = [*shapes, length]
        for place, following in itertools.pairwise(places):
            now, later = shapes[place], shapes.get(following)
            if now.get("outside") == "1":
                continue
            for frame in range(place, following):
                moved = (frame - place) / (following - place)
                masks[frame] = encode_seen(_draw(path, now, later, moved, height, width))
        tracks.append(ObjectTrack(ids[label], masks))
    return tracks


def _draw(
    path: pathlib.Path,
    now: ElementTree.Element,
    later: ElementTree.Element | None,
    moved: float,
    height: int,
    width: int,
) -> np.ndarray:
    """The mask (height, width) of the shape `now`, `moved` (0 to 1) of the way to `later`, if any."""
    if now.tag == "mask":
        return _paste(path, now, height, width)
    points = _points(path, now)
    if moved and later is not None and later.get("outside") != "1":
        target = _points(path, later) if later.tag == now.tag else points[:0]
        if target.shape != points.shape:
            raise UserError(
                f"{path}: between frames {now.get('frame')} and {later.get('frame')} a <{now.tag}> changes "
                "its points and the frames between are missing; export it from CVAT, which writes them"
            )
        points = points + moved * (target - points)
    if now.tag == "box":
        points = _corners(*points)
    try:
        return decode_segmentation([points.ravel().tolist()], height, width)
    except UserError as error:
        raise UserError(f"{path}: <{now.tag}> of frame {now.get('frame')}: {error}") from None


def _points(path: pathlib.Path, shape: ElementTree.Element) -> np.ndarray:
    """The points (n, 2) of a polygon. For a box: (x1, y1), (x2, y2) and (its angle in degrees, 0)."""
    try:
        if shape.tag == "box":
            edges = [float(shape.attrib[key]) for key in ("xtl", "ytl", "xbr", "ybr")]
            points = np.array([edges[:2], edges[2:], [float(shape.get("rotation", 0)), 0]])
        else:
            pairs = [pair.split(",") for pair in shape.attrib["points"].split(";")]
            points = np.array(pairs, float).reshape(-1, 2)
        if not np.isfinite(points).all():
            raise ValueError("not finite")
    except (KeyError, ValueError) as error:
        where = f"<{shape.tag}> of frame {shape.get('frame')}"
        raise UserError(
            f"{path}: the points of a {where} cannot be read ({error}); export it again"
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
        if (
            min(left, top, w, h, runs.min()) < 0
            or left + w > width
            or top + h > height
            or runs.sum() != w * h
        ):
            raise ValueError(f"{runs.sum()} pixels in a box of {w}x{h} at {left}, {top}")
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{path}: the <mask> of frame {shape.get('frame')} cannot be read ({error}); export it again"
        ) from None
    mask = np.zeros((height, width), bool)
    mask[top : top + h, left : left + w] = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(h, w)
    return mask
