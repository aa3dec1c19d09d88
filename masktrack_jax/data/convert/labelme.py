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
import itertools
import os
import pathlib
from typing import NamedTuple

import numpy as np

from masktrack_jax.data.convert.source import (
    Clip,
    ObjectTrack,
    Report,
    Source,
    encode_seen,
    list_files,
    list_folders,
    list_images,
    named_file,
    note_cut,
    size_error,
    with_any_case,
)
from masktrack_jax.data.json_files import read_object
from masktrack_jax.data.values import is_number, numbered_id, shown, typed
from masktrack_jax.masks.rle import Rle
from masktrack_jax.masks.segmentations import FAR_AWAY, decode_segmentation
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.numbers import as_integer
from masktrack_jax.video.images import open_image

SHAPES = ("polygon", "rectangle", "mask")

Group = int | str | None  # a group_id


class Shape(NamedTuple):
    """One shape of a file: its name for messages, its kind, its points (n, 2) and its record."""

    where: str
    kind: str
    points: np.ndarray
    record: dict


class Frame(NamedTuple):
    """A file, its content and its image."""

    path: pathlib.Path
    content: dict
    image: pathlib.Path


Objects = dict[tuple[str, Group], dict[int, list[Shape]]]  # (label, group): frame: shapes


def read(input_path: str | pathlib.Path, report: Report) -> Source:
    """Read a folder of JSON files, or a folder of such folders. Raises UserError."""
    root = pathlib.Path(input_path)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; check --input")
    inside = list_files(root, [".json"])
    below = {x: list_files(x, [".json"]) for x in list_folders(root)}
    by_folder = {root: inside} if inside else below
    if inside:
        report.left_out["json files in folders below others"] += sum(map(len, below.values()))
    labels: dict[str, None] = {}
    clips = []
    for folder, jsons in by_folder.items():
        if not jsons:
            report.left_out["folders without a json"] += 1
            continue
        frames = [_frame(path, root) for path in jsons]
        objects = _objects(frames, report)
        labels |= dict.fromkeys(label for label, _ in objects)
        images = {os.path.normpath(image) for image in list_images(folder)}
        unlabelled = images - {str(frame.image) for frame in frames}
        report.left_out["frames without a json, so not labelled"] += len(unlabelled)
        name = folder.resolve().name if folder == root else folder.name
        tracks = functools.partial(_tracks, frames, objects, report)
        clips.append(Clip(name, tuple((frame.image.name, frame.image) for frame in frames), tracks))
    return Source([(None, label) for label in labels], clips)


def _frame(path: pathlib.Path, root: pathlib.Path) -> Frame:
    r"""Read a file; its `imagePath` is relative to it, with / or \, and must stay in the folder `root`."""
    content = read_object(path)
    for key in ("imagePath", "shapes"):
        if key not in content:
            raise UserError(f"{path}: has no `{key}`, as LabelMe files have; leave the file out, or add it")
    name, shapes = content["imagePath"], content["shapes"]
    if not isinstance(shapes, list):
        raise UserError(f"{path}: has `shapes` {shown(shapes)}, expected a list; correct it")
    if not isinstance(name, str):
        raise UserError(f"{path}: has `imagePath` {shown(name)}, expected the name of its image; correct it")
    try:
        image = named_file(name, path.parent, root)
    except ValueError as error:
        raise UserError(
            f"{path}: has `imagePath` {shown(name)}, which {error}; put the image beside the file "
            "and correct it"
        ) from None
    image = with_any_case(image)
    if not os.path.isfile(image):
        raise UserError(f"{path}: its frame {image} does not exist; put it there")
    return Frame(path, content, image)


def _objects(frames: list[Frame], report: Report) -> Objects:
    """The objects of a video, in order of appearance."""
    objects: Objects = {}
    for place, frame in enumerate(frames):
        for number, record in enumerate(frame.content["shapes"], start=1):
            where = f"{frame.path}: shape {number}"
            label, group, shape = _shape(where, record)
            if shape.kind not in SHAPES:
                kind = shown(shape.kind)
                report.left_out[f"shapes that are not polygons, rectangles or masks ({kind})"] += 1
                continue
            if shape.kind == "polygon" and len(shape.points) < 3:
                report.left_out["polygons with under 3 points"] += 1
                continue
            parts = objects.setdefault((label, group), {}).setdefault(place, [])
            if parts and group is None:
                raise UserError(
                    f"{frame.path}: two shapes {shown(label)} without `group_id`; number the objects by it"
                )
            if parts:
                report.notes["shapes joined with another of their object in their frame"] += 1
            parts.append(shape)
    _note_changed_labels(objects, report)
    return objects


def _note_changed_labels(objects: Objects, report: Report) -> None:
    """Note objects of one `group_id` and different labels that are never seen together."""
    labels_of: dict[Group, list[str]] = {}
    for label, group in objects:
        labels_of.setdefault(group, []).append(label)
    for group, labels in labels_of.items():
        for first, second in itertools.pairwise(labels if group is not None else []):
            if not objects[first, group].keys() & objects[second, group].keys():
                kind = f"objects whose label changes ({shown(first)}, {shown(second)}), taken as two"
                report.notes[kind] += 1


def _shape(where: str, record: object) -> tuple[str, Group, Shape]:
    """The label, group and checked points of a record."""
    if not isinstance(record, dict) or not {"label", "points"} <= record.keys():
        raise UserError(f"{where} has no `label` and `points`; correct the file")
    label, points = record["label"], record["points"]
    if not isinstance(label, str) or not label.strip():
        raise UserError(f"{where} has `label` {shown(label)}, expected a name; correct the file")
    kind = record.get("shape_type") or "polygon"
    group = record.get("group_id")
    number = numbered_id(group)
    if group is not None and number is None:
        raise UserError(f"{where} has `group_id` {typed(group)}, expected a whole number; correct the file")
    pairs = points if isinstance(points, list) else [None]
    if not all(
        isinstance(pair, list) and len(pair) == 2 and all(is_number(x, FAR_AWAY) for x in pair)
        for pair in pairs
    ):
        raise UserError(
            f"{where} ({kind!s:.40}) cannot be drawn: `points` are not x, y pairs of pixels; correct it"
        )
    return label, number, Shape(where, str(kind), np.array(pairs, float).reshape(-1, 2), record)


def _tracks(
    frames: list[Frame], objects: Objects, report: Report, height: int, width: int
) -> list[ObjectTrack]:
    """One track per object; its parts in a frame are merged."""
    for path, content, image in frames:
        stated = tuple(content.get(key) for key in ("imageHeight", "imageWidth"))
        rows, columns = (
            found if side is None else as_integer(side) for side, found in zip(stated, (height, width))
        )
        if rows is None or columns is None:
            raise UserError(
                f"{path}: has `imageHeight` {typed(stated[0])} and `imageWidth` {typed(stated[1])}, expected "
                "whole numbers; correct it"
            )
        if (rows, columns) != (height, width):
            raise size_error(f"{path}: states an image of", (rows, columns), (height, width), image)
    tracks = []
    for (label, _), seen in objects.items():
        masks: list[Rle | None] = [None] * len(frames)
        for place, parts in seen.items():
            joined = np.zeros((height, width), bool)
            for shape in parts:
                try:
                    joined |= _draw(shape, report, height, width)
                except (ValueError, UserError) as error:
                    raise UserError(
                        f"{shape.where} ({shape.kind}) cannot be drawn ({error}); correct it"
                    ) from None
            masks[place] = encode_seen(joined, report)
        tracks.append(ObjectTrack(label, masks))
    return tracks


def _draw(shape: Shape, report: Report, height: int, width: int) -> np.ndarray:
    """The mask (height, width) bool of one shape. Raises ValueError or UserError."""
    points = shape.points
    if not len(points) or (shape.kind == "rectangle" and len(points) not in (2, 4)):
        raise ValueError(f"it has {len(points)} points")
    if shape.kind == "mask":
        return _paste(shape.record.get("mask"), points, height, width)
    if shape.kind == "rectangle" and len(points) == 2:
        (x1, y1), (x2, y2) = points
        points = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])
    polygon = points.ravel().tolist()
    note_cut(polygon, height, width, report)
    return decode_segmentation([polygon], height, width).astype(bool)


def _paste(text: object, points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Decode a `mask` shape: a PNG in base64, whose upper left pixel is at the first point."""
    if not isinstance(text, str):
        raise ValueError(f"its `mask` is {shown(text)}, not text in base64")
    try:
        png = io.BytesIO(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"its `mask` is not base64: {error}") from None
    x, y = np.rint(points[0]).astype(int)
    mask = np.zeros((height, width), bool)
    with open_image("its `mask`", png) as image:
        inside = min(x, y) >= 0 and y + image.height <= height and x + image.width <= width
        if inside:  # else the pixels could take any memory
            mask[y : y + image.height, x : x + image.width] = np.array(image.convert("L")) > 0
    if not inside:
        raise ValueError("its mask leaves the frame")
    return mask
