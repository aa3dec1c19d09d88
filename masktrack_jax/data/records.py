"""Check the records of an annotations file: categories, videos and objects, but not their masks."""

import itertools
from collections.abc import Collection
from typing import Any

import numpy as np

from masktrack_jax.data.values import (
    Id,
    Report,
    crowd_flag,
    is_number,
    known_id,
    shown,
    typed,
    unique_ids,
    whole_number,
)
from masktrack_jax.masks.rle_strings import MOST_PIXELS
from masktrack_jax.runtime.files import is_inside


def check_categories(records: list, report: Report) -> dict[int, dict[str, Any]]:
    """The categories by id, those without a name too if faults are collected."""
    categories = {}
    for record, found in zip(records, unique_ids(records, "category", report)):
        if not isinstance(found, int):
            continue
        where = f"category {found}"
        name = record.get("name")
        if "name" not in record:
            report("categories without a name", where, "has no `name`")
        elif name == "":
            report("categories without a name", where, "has `name` '', which is empty")
        elif not isinstance(name, str):
            report("categories without a name", where, f"has `name` {shown(name)}, which is not text")
        categories[found] = record | {"id": found}
    return categories


def check_video(record: dict, video_id: Id, report: Report) -> dict[str, Any] | None:
    """The checked record of a video, None if it is faulty."""
    where, faults = f"video {shown(video_id)}", []

    def fault(kind: str, where: str, problem: str) -> None:
        faults.append(problem)
        report(kind, where, problem)

    height, width = (
        whole_number(record, key, where, fault, "videos without a size", 1) for key in ("height", "width")
    )
    if height and width and height * width > MOST_PIXELS:
        fault("videos without a size", where, f"has frames of {height} x {width}, more than any camera's")
    names, length = record.get("file_names"), None
    if record.get("length") is not None:
        length = whole_number(record, "length", where, fault, "wrong lengths", 1)
    checked = record | {"id": video_id, "height": height, "width": width}
    if names is not None or record.get("length") is None:
        if not isinstance(names, list) or not names:
            found = f"has `file_names` {shown(names)}, expected a list of frames"
            absent = "has no list of frames `file_names`"
            fault("videos without frames", where, found if "file_names" in record else absent)
            return None
        checked["file_names"] = [_file_name(name, where, fault) for name in names]
        if length not in (None, len(names)):
            fault("wrong lengths", where, f"has `length` {length} but {len(names)} `file_names`")
        length = len(names)
    if not isinstance(record.get("name"), str | None):
        fault("names of a wrong type", where, f"has `name` {shown(record['name'])}, which is not text")
    return None if faults else checked | {"length": length}


def _file_name(name: object, where: str, report: Report) -> str:
    """The name of a frame with "/" between folders."""
    if not isinstance(name, str) or not name:
        report("videos without frames", where, f"has {shown(name)} in `file_names`, expected names of frames")
        return ""
    if not is_inside(name):
        problem = f"has frame {shown(name)} in `file_names`, which is not below the frames folder"
        report("frames outside of the frames folder", where, problem)
    return name.replace("\\", "/")


def check_annotation(
    record: object,
    where: str,
    known: Collection[Id],
    videos: dict[Id, dict],
    categories: Collection[int],
    report: Report,
) -> dict[str, Any] | None:
    """The checked record of an object, with its masks as in the file; None if it is faulty.

    `where` is its name in messages, `known` the ids of all videos, `videos` those without a fault.
    """
    if not isinstance(record, dict):
        report("records that are not objects", where, f"is {shown(record)}, expected an object")
        return None
    video_id = known_id(record, "video_id", known, "videos", where, report)
    category_id = known_id(record, "category_id", categories, "categories", where, report)
    checked = record | {"video_id": video_id, "category_id": category_id}
    if "iscrowd" in record:
        checked["iscrowd"] = crowd_flag(record, where, report)
    if "segmentations" not in record:
        report("missing keys", where, "has no `segmentations`")
        return None
    video = videos.get(video_id) if video_id is not None else None
    if video is None or category_id is None:
        return None
    masks = _per_frame(record, "segmentations", video, where, report)
    boxes, areas = (_per_frame(record, key, video, where, report) for key in ("bboxes", "areas"))
    if masks is None:
        return None
    checked["segmentations"] = masks
    if "bboxes" in record:
        checked["bboxes"] = _boxes(boxes, where, report)
    if "areas" in record:
        checked["areas"] = _areas(areas, where, report)
    return checked


def _per_frame(record: dict, key: str, video: dict, where: str, report: Report) -> list | None:
    """The list `key` of a record, an entry for each frame, `[]` as None; None if it is faulty or absent."""
    entries = record.get(key)
    if key != "segmentations" and (entries is None or entries == []):
        return None
    if not isinstance(entries, list) or len(entries) != video["length"]:
        frames = f"its video {shown(video['id'])} has {video['length']} frames"
        problem = f"has `{key}` {typed(entries)}, expected a list: {frames}"
        if isinstance(entries, list):
            problem = f"has {len(entries)} entries in `{key}` but {frames}"
        report("wrong lengths", where, problem)
        return None
    return [None if entry == [] else entry for entry in entries] if [] in entries else entries


def _boxes(boxes: list | None, where: str, report: Report) -> list | None:
    """The boxes, if each is four numbers or None."""
    if boxes is None:
        return None
    there = [box for box in boxes if box is not None]
    sound = all(type(box) is list and len(box) == 4 for box in there)
    if sound and _are_numbers(list(itertools.chain.from_iterable(there))):
        return boxes
    faulty = False
    for frame, box in enumerate(boxes):
        four = isinstance(box, list | tuple) and len(box) == 4
        if box is not None and not (four and all(is_number(one, MOST_PIXELS) for one in box)):
            problem = f"has box {shown(box)}, expected x, y, width and height in pixels"
            report("boxes that are not x, y, width, height", f"{where}, frame {frame},", problem)
            faulty = True
    return None if faulty else boxes


def _areas(areas: list | None, where: str, report: Report) -> list | None:
    """The areas, if each is a number or None."""
    if areas is None or _are_numbers([area for area in areas if area is not None]):
        return areas
    faulty = False
    for frame, area in enumerate(areas):
        if area is not None and not is_number(area, MOST_PIXELS):
            problem = f"has area {typed(area)}, expected a number of pixels"
            report("areas that are not numbers", f"{where}, frame {frame},", problem)
            faulty = True
    return None if faulty else areas


def _are_numbers(some: list) -> bool:
    """Whether all are plain numbers within any frame; fast, and False for some that are."""
    if not {*map(type, some)} <= {int, float}:
        return False
    try:
        return bool((np.abs(np.fromiter(some, float, len(some))) <= MOST_PIXELS).all())
    except OverflowError:
        return False
