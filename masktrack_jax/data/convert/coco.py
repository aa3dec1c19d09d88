"""COCO: frames of one folder whose annotations have track ids become a video, other images a video each.

A track id is `track_id` or `instance_id`, in an annotation or in its `attributes`, as CVAT exports it. Images
whose annotations have track ids are one video if they have the same `video_id` or, without one, if they are
in the same folder. Any other image is a video of one frame, or of the same frame repeated. Category ids and
`iscrowd` are kept. Annotations without a segmentation are left out.
"""

import functools
import os
import pathlib
import re
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, NoReturn

from masktrack_jax.data.convert.source import (
    Clip,
    ObjectTrack,
    Report,
    Source,
    encode_seen,
    in_order,
    named_file,
    note_cut,
    size_error,
    with_any_case,
)
from masktrack_jax.data.json_files import read_object
from masktrack_jax.data.values import (
    Id,
    crowd_flag,
    kind_of,
    known_id,
    numbered_id,
    record_error,
    record_name,
    shown,
    unique_ids,
    whole_number,
)
from masktrack_jax.masks.rle import Rle
from masktrack_jax.masks.segmentations import decode_segmentation
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.video.images import Size

Fail = Callable[[str, str, str], NoReturn]
TrackId = Id | None


class Annotation(NamedTuple):
    """One labelled object of an image; `where` names it in messages."""

    where: str
    category: str
    track: TrackId
    iscrowd: bool
    segmentation: object


class Picture(NamedTuple):
    """An image: its name with "/" between folders, its path, its stated size and its annotations.

    Images of one `group` are a video if they have track ids; `order` is the place in it, if stated.
    """

    where: str
    name: str
    path: pathlib.Path
    size: Size
    group: tuple[str, Id | None]  # (folder, video id)
    order: int | None
    annotations: list[Annotation]


def read(
    input_path: str | pathlib.Path, report: Report, images: str | pathlib.Path, frames: int = 1
) -> Source:
    """Read an instances file with images in the folder `images`; one-image clips repeat it `frames` times.

    Raises UserError.
    """
    path = pathlib.Path(input_path)

    def fail(kind: str, where: str, problem: str) -> NoReturn:
        raise record_error(path, where, problem)

    content = read_object(path)
    categories = _categories(_records(path, content, "categories"), fail)
    pictures = _pictures(_records(path, content, "images"), pathlib.Path(images), fail)
    labels = _records(path, content, "annotations") if "annotations" in content else []
    _annotate(labels, categories, pictures, report, fail)
    groups: dict[tuple[str, Id | None], list[Picture]] = {}
    for picture in pictures.values():
        groups.setdefault(picture.group, []).append(picture)
    stems = Counter(_stem(picture.name) for picture in pictures.values())
    clips = []
    for (folder, video_id), inside in groups.items():
        if any(label.track is not None for picture in inside for label in picture.annotations):
            if frames != 1:
                raise UserError(f"{path}: has track ids, so its images are not repeated; leave out --frames")
            name = folder or _own_name(path)
            if video_id is not None and sum(other == folder for other, _ in groups) > 1:
                name += f"_{video_id}"
            clips.append(_video(path, name, inside, report))
            continue
        for picture in inside:
            stem, suffix = _stem(picture.name), picture.path.suffix
            name = stem if stems[stem] == 1 else picture.name  # a.jpg and a.png
            names = [f"{frame:05d}{suffix}" for frame in range(frames)]
            tracks = functools.partial(_still_tracks, path, picture, frames, report)
            clips.append(Clip(name, tuple((frame, picture.path) for frame in names), tracks))
    return Source([*categories.items()], clips)


def _stem(file_name: str) -> str:
    return str(pathlib.PurePosixPath(file_name).with_suffix(""))


def _own_name(path: pathlib.Path) -> str:
    """The name of the file, or of the first folder around it that is not called instances or annotations."""
    path = path.resolve()
    names = [path.stem, *(parent.name for parent in path.parents if parent.name)]
    return next((x for x in names if not re.match("instances|annotations", x.lower())), path.stem)


def _records(path: pathlib.Path, content: dict[str, Any], key: str) -> list[Any]:
    records = content.get(key)
    if not isinstance(records, list):
        found = f" but {kind_of(records)}" if key in content else ""
        raise UserError(f"{path}: has no list `{key}`{found}; give a COCO instances file")
    return records


def _text(record: dict, key: str, where: str, fail: Fail) -> str:
    """The text under a key, not empty."""
    if key not in record:
        fail("", where, f"has no `{key}`")
    if not isinstance(record[key], str) or not record[key].strip():
        fail("", where, f"has `{key}` {shown(record[key])}, expected a name")
    return record[key]


def _categories(records: list, fail: Fail) -> dict[int, str]:
    """The names of the categories by id."""
    ids = map(_integer, unique_ids(records, "category", fail))
    return {number: _text(record, "name", f"category {number}", fail) for number, record in zip(ids, records)}


def _integer(found: Id | None) -> int:
    """An integer that the shared checks return; where they find none, their `fail` has raised an error."""
    assert isinstance(found, int)
    return found


def _pictures(records: list, images: pathlib.Path, fail: Fail) -> dict[int, Picture]:
    """The images by id."""
    pictures = {}
    for number, record in zip(map(_integer, unique_ids(records, "image", fail)), records):
        where = f"image {number}"
        given = _text(record, "file_name", where, fail)
        try:
            place = named_file(given, images, images)
        except ValueError as error:
            fail("", where, f"has `file_name` {shown(given)}, which {error}")
        place = with_any_case(place)
        name = os.path.relpath(place, images)
        if name == ".":
            fail("", where, f"has `file_name` {shown(given)}, expected the name of an image")
        height, width = (
            _integer(whole_number(record, key, where, fail, "", 1)) for key in ("height", "width")
        )
        group = os.path.dirname(name), _optional_id(record, "video_id", where, fail)
        order = None
        if key := next((key for key in ("frame_id", "frame_index") if record.get(key) is not None), None):
            order = whole_number(record, key, where, fail, "")
        pictures[number] = Picture(where, name, place, (height, width), group, order, [])
    return pictures


def _annotate(
    records: list, categories: dict, pictures: dict[int, Picture], report: Report, fail: Fail
) -> None:
    """Add the annotations to their images."""
    for place, record in enumerate(records, start=1):
        where = record_name(record, "annotation", place)
        if not isinstance(record, dict):
            fail("", where, f"is {shown(record)}, expected an object")
        image = _integer(known_id(record, "image_id", pictures, "images", where, fail))
        category = _integer(known_id(record, "category_id", categories, "categories", where, fail))
        crowd = bool(crowd_flag(record, where, fail))
        if not record.get("segmentation"):
            report.left_out["annotations without a segmentation"] += 1
            continue
        label = Annotation(
            where, categories[category], _track_id(record, where, fail), crowd, record["segmentation"]
        )
        pictures[image].annotations.append(label)


def _track_id(record: dict, where: str, fail: Fail) -> TrackId:
    attributes = record.get("attributes")
    for values in (record, attributes if isinstance(attributes, dict) else {}):
        for key in ("track_id", "instance_id"):
            found = _optional_id(values, key, where, fail)
            if found is not None:
                return found
    return None


def _optional_id(values: dict, key: str, where: str, fail: Fail) -> Id | None:
    """The id under a key, "7" as 7; None if it is absent or empty."""
    value = values.get(key)
    if value is None or value == "":
        return None
    found = numbered_id(value)
    if found is None:
        fail("", where, f"has `{key}` {shown(value)}, expected a whole number")
    return found


def _still_tracks(
    path: pathlib.Path, picture: Picture, frames: int, report: Report, height: int, width: int
) -> list[ObjectTrack]:
    """One track per annotation of an image, with the same mask in every frame."""
    _check_size(path, picture, (height, width))
    masks = [(label, _mask(path, label, report, height, width)) for label in picture.annotations]
    return [ObjectTrack(label.category, [mask] * frames, label.iscrowd) for label, mask in masks]


def _video(path: pathlib.Path, name: str, pictures: list[Picture], report: Report) -> Clip:
    """The clip of images with track ids."""
    orders = [picture.order for picture in pictures]
    if len({*orders} - {None}) < len(orders) - orders.count(None):
        report.notes["videos with two frames of one number, in the order of the frames' names"] += 1
    if None in orders or len({*orders}) < len(orders):
        places = {file_name: place for place, file_name in enumerate(in_order(x.name for x in pictures))}
        pictures = sorted(pictures, key=lambda picture: places[picture.name])
    else:
        pictures = sorted(pictures, key=lambda picture: picture.order or 0)
    frames = tuple((picture.path.name, picture.path) for picture in pictures)
    return Clip(name, frames, functools.partial(_video_tracks, path, pictures, report))


def _video_tracks(
    path: pathlib.Path, pictures: list[Picture], report: Report, height: int, width: int
) -> list[ObjectTrack]:
    """One track per track id, and one for each annotation without."""
    tracks: dict[Hashable, ObjectTrack] = {}
    changed, crowds = set(), set()
    for frame, picture in enumerate(pictures):
        _check_size(path, picture, (height, width))
        for number, label in enumerate(picture.annotations):
            key: Hashable = (frame, number) if label.track is None else label.track
            if label.track is None:
                report.notes["annotations without a track id, each a track of one frame"] += 1
            new = ObjectTrack(label.category, [None] * len(pictures), label.iscrowd)
            track = tracks.setdefault(key, new)
            if track.masks[frame] is not None:
                raise record_error(
                    path, label.where, f"is the second of track {label.track!r} in {picture.where}"
                )
            if track.category != label.category:
                changed.add(key)
            if track.iscrowd != label.iscrowd:
                crowds.add(key)
            track.masks[frame] = _mask(path, label, report, height, width)
    report.notes["tracks whose category changes, taken from their first frame"] += len(changed)
    report.notes["tracks whose `iscrowd` changes, taken from their first frame"] += len(crowds)
    return [*tracks.values()]


def _check_size(path: pathlib.Path, picture: Picture, found: Size) -> None:
    if picture.size != found:
        raise size_error(f"{path}: {picture.where} is stated as", picture.size, found, picture.path)


def _mask(path: pathlib.Path, label: Annotation, report: Report, height: int, width: int) -> Rle | None:
    """The mask of an annotation; parts under three points are left out, None if there are no others."""
    segmentation = label.segmentation
    if isinstance(segmentation, list) and segmentation and isinstance(segmentation[0], list):
        short = [isinstance(x, list) and len(x) < 6 and list not in map(type, x) for x in segmentation]
        kept = [part for part, left_out in zip(segmentation, short) if not left_out]
        report.left_out["parts of polygons with under 3 points"] += len(segmentation) - len(kept)
        if not kept:
            return None
        segmentation = kept
    try:
        mask = decode_segmentation(segmentation, height, width)
    except UserError as error:
        raise UserError(f"{path}: {label.where}: {error}") from None
    for part in segmentation if isinstance(segmentation, list) else []:
        note_cut(part, height, width, report)
    return encode_seen(mask, report)
