"""LabelMe: a folder per video, with a JSON file beside every labelled frame.

Shapes with the same label and `group_id` are one object throughout the video; several of them in a frame are
its parts. A shape without `group_id` is the video's only object with its label. Polygons, rectangles and
masks are read. Frames without a JSON file are unlabelled and left out. A JSON file without shapes marks an
empty frame.
"""

import base64
import binascii
import functools
import io
import pathlib
from collections import Counter
from typing import NamedTuple

import numpy as np

from masktrack_jax.data.convert.writer import (
    Clip,
    ObjectTrack,
    Source,
    encode_seen,
    in_order,
    list_images,
    number_categories,
)
from masktrack_jax.data.images import open_image
from masktrack_jax.data.json_files import read_object
from masktrack_jax.masks.rle import Rle
from masktrack_jax.masks.segmentations import decode_segmentation
from masktrack_jax.runtime.errors import UserError

SHAPES = ("polygon", "rectangle", "mask")


class Shape(NamedTuple):
    """One shape of a file: its index in the list, its kind and its record."""

    place: int
    kind: str
    record: dict


Labelled = list[tuple[pathlib.Path, dict]]  # the files of a video and their content
Objects = dict[tuple[str, str], dict[int, list[Shape]]]  # (label, group): frame: shapes


def read(input_path: str | pathlib.Path) -> Source:
    """Read a folder of JSON files, or a folder of such folders. Raises UserError."""
    root = pathlib.Path(input_path)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; check --input")
    folders = [root] if any(root.glob("*.json")) else [path for path in root.iterdir() if path.is_dir()]
    by_name = {folder.resolve().name: folder for folder in folders if any(folder.glob("*.json"))}
    left_out: Counter[str] = Counter()
    labels: set[str] = set()
    clips = []
    ids: dict[str, int] = {}  # filled below, once all labels are known
    for name in in_order(by_name):
        folder = by_name[name]
        jsons = [folder / x for x in in_order(path.name for path in folder.glob("*.json"))]
        labelled = [(path, read_object(path)) for path in jsons]
        frames = [(image.name, image) for image in (_image(path, content) for path, content in labelled)]
        objects = _objects(labelled, left_out)
        labels |= {label for label, _ in objects}
        left_out["frames without a json, so not labelled"] += max(len(list_images(folder)) - len(frames), 0)
        clips.append(Clip(name, tuple(frames), functools.partial(_tracks, labelled, objects, ids)))
    categories, numbers = number_categories(labels)
    ids.update(numbers)
    return Source(categories, clips, left_out)


def _image(path: pathlib.Path, content: dict) -> pathlib.Path:
    """The frame of a file; `imagePath` is relative to the file and may have backslashes."""
    name = content.get("imagePath")
    if not isinstance(name, str) or not isinstance(content.get("shapes"), list):
        raise UserError(f"{path}: has no `imagePath` and `shapes`; it is not a LabelMe file")
    image = path.parent / name.replace("\\", "/")
    if not image.is_file():
        raise UserError(f"{path}: its frame {image} does not exist; put it there")
    return image


def _objects(labelled: Labelled, left_out: Counter[str]) -> Objects:
    """The objects of a video, in order of appearance."""
    objects: Objects = {}
    for frame, (path, content) in enumerate(labelled):
        for place, shape in enumerate(content["shapes"]):
            label = shape.get("label") if isinstance(shape, dict) else None
            points = shape.get("points") if label else None
            if not isinstance(label, str) or not isinstance(points, list):
                raise UserError(f"{path}: shape {place + 1} has no `label` and `points`; correct the file")
            kind = shape.get("shape_type") or "polygon"
            if kind not in SHAPES:
                left_out[f"shapes that have no area here ({kind})"] += 1
                continue
            group = shape.get("group_id")
            parts = objects.setdefault((label, str(group)), {}).setdefault(frame, [])
            if parts and group is None:
                raise UserError(f"{path}: two shapes {label!r} without `group_id`; number the objects by it")
            parts.append(Shape(place, kind, shape))
    return objects


def _tracks(
    labelled: Labelled, objects: Objects, ids: dict[str, int], height: int, width: int
) -> list[ObjectTrack]:
    """One track per object; its parts in a frame are merged."""
    for path, content in labelled:
        stated = content.get("imageHeight", height), content.get("imageWidth", width)
        if stated != (height, width):
            raise UserError(
                f"{path}: states {stated[0]}x{stated[1]} (height x width) but its frame is {height}x{width}; "
                "correct one of them"
            )
    tracks = []
    for (label, _), frames in objects.items():
        masks: list[Rle | None] = [None] * len(labelled)
        for frame, parts in frames.items():
            joined = np.zeros((height, width), bool)
            for place, kind, shape in parts:
                where = f"{labelled[frame][0]}: shape {place + 1}"
                try:
                    joined |= _draw(kind, shape, height, width)
                except (ValueError, TypeError, IndexError, UserError) as error:
                    raise UserError(f"{where} ({kind}) cannot be drawn ({error}); correct it") from None
            masks[frame] = encode_seen(joined)
        tracks.append(ObjectTrack(ids[label], masks))
    return tracks


def _draw(kind: str, shape: dict, height: int, width: int) -> np.ndarray:
    """The mask (height, width) bool of one shape."""
    points = np.array(shape["points"], float).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise ValueError("a point is not finite")
    if kind == "mask":
        return _paste(shape, points, height, width)
    if kind == "rectangle":
        (x1, y1), (x2, y2) = points[:2]
        points = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])
    return decode_segmentation([points.ravel().tolist()], height, width).astype(bool)


def _paste(shape: dict, points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Decode a `mask` shape: a PNG in base64, whose upper left pixel is at the first point."""
    try:
        png = io.BytesIO(base64.b64decode(shape.get("mask") or "", validate=True))
    except binascii.Error as error:
        raise ValueError(f"its mask is not base64: {error}") from None
    with open_image(png) as image:
        part = np.array(image.convert("L")) > 0
    x, y = np.rint(points[0]).astype(int)
    whole = np.zeros((height, width), bool)
    if min(x, y) < 0 or y + part.shape[0] > height or x + part.shape[1] > width:
        raise ValueError("its mask leaves the frame")
    whole[y : y + part.shape[0], x : x + part.shape[1]] = part
    return whole
