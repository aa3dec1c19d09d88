"""Convert annotations from mmtracking's format ("CocoVID"), which has one record per frame and per box."""

from typing import Any, NamedTuple

from masktrack_jax.data.values import (
    Id,
    Report,
    known_id,
    record_name,
    shown,
    typed,
    unique_ids,
    whole_number,
)


class Image(NamedTuple):
    """A frame: its video, its number in it (from 0), its name and its size."""

    video_id: Id
    frame: int
    file_name: object
    size: tuple[int, int]  # height, width


def is_cocovid(content: dict[str, Any]) -> bool:
    """Whether the content of an annotations file has this format.

    A list `images` alone is not enough: a YouTube-VIS file may contain an unused one.
    """
    images = content.get("images")
    if not isinstance(images, list) or not images or "videos" not in content:
        return False
    return _any_has(content.get("annotations"), "image_id") or not _any_has(content["videos"], "file_names")


def from_cocovid(content: dict[str, Any], report: Report, notes: list[str]) -> dict[str, Any]:
    """Convert to the YouTube-VIS format: one record per video and one per object.

    Objects are numbered from 1 in the order of their first box. Faulty records are reported and left out;
    `labels.check_labels` checks the values that are only moved here. Adds to `notes` a line on each kind of
    value that the format of YouTube-VIS cannot hold.
    """
    lists = {}
    for key in ("videos", "annotations"):
        lists[key] = [] if content.get(key) is None else content[key]
        if not isinstance(lists[key], list):
            report("missing lists", "the file", f"has no list of objects `{key}` but {shown(lists[key])}")
            lists[key] = []
    video_ids = unique_ids(lists["videos"], "video", report, text=True)
    images = _images(content["images"], {found for found in video_ids if found is not None}, report)
    frames: dict[Id, dict[int, Image]] = {}  # video id -> its images by frame
    for image_id, image in list(images.items()):
        if frames.setdefault(image.video_id, {}).setdefault(image.frame, image) is not image:
            problem = f"is a second frame {image.frame} of video {shown(image.video_id)}"
            report("wrong frames", f"image {shown(image_id)}", problem)
            del images[image_id]
    videos = []
    for record, video_id in zip(lists["videos"], video_ids):
        if video_id is not None:
            inside = frames.get(video_id, {})
            videos += _video(record, inside, f"video {shown(video_id)}", report)
    out = {"categories": content.get("categories"), "videos": videos}
    if lists["annotations"]:
        lengths = {video["id"]: video["length"] for video in videos}
        out["annotations"] = _objects(lists["annotations"], images, lengths, report, notes)
    return out


def instance_name(record: dict[str, Any]) -> str:
    """The name of a converted object in messages: it has no record of its own in the file."""
    return f"instance {record['instance_id']} of video {shown(record['video_id'])}"


def _any_has(records: object, key: str) -> bool:
    """Whether any record of a list has a key."""
    return isinstance(records, list) and any(isinstance(one, dict) and key in one for one in records)


def _images(records: list, video_ids: set[Id], report: Report) -> dict[Id, Image]:
    """The images by id."""
    images: dict[Id, Image] = {}
    for record, image_id in zip(records, unique_ids(records, "image", report, text=True)):
        if image_id is None:
            continue
        where = f"image {shown(image_id)}"
        video_id = known_id(record, "video_id", video_ids, "videos", where, report)
        frame = whole_number(record, "frame_id", where, report, "wrong frames", low=0)
        height, width = (
            whole_number(record, key, where, report, "videos without a size", low=1)
            for key in ("height", "width")
        )
        if "file_name" not in record:
            report("missing keys", where, "has no `file_name`")
        elif video_id is not None and frame is not None and height is not None and width is not None:
            images[image_id] = Image(video_id, frame, record["file_name"], (height, width))
    return images


def _video(record: dict, inside: dict[int, Image], where: str, report: Report) -> list[dict[str, Any]]:
    """The record of a video in the YouTube-VIS format, or none if it is faulty."""
    if not inside:
        report("wrong frames", where, "has no image in `images`")
        return []
    if sorted(inside) != list(range(len(inside))):
        numbers = ", ".join(map(str, sorted(inside)[:3])) + (", …" if len(inside) > 3 else "")
        problem = f"has {len(inside)} images, whose `frame_id` do not count from 0: {numbers}"
        report("wrong frames", where, problem)
        return []
    images = [inside[frame] for frame in range(len(inside))]
    height, width = images[0].size
    for image in images:
        if image.size != (height, width):
            other = f"{image.size[0]}x{image.size[1]}"
            problem = f"has images of {height}x{width} and {other} (height x width), expected one size"
            report("videos without a size", where, problem)
            return []
    names = [image.file_name for image in images]
    return [{**record, "height": height, "width": width, "length": len(names), "file_names": names}]


def _objects(
    boxes: list, images: dict[Id, Image], lengths: dict[Id, int], report: Report, notes: list[str]
) -> list[dict[str, Any]]:
    """Merge the records of an object's boxes into one record per object."""
    objects: dict[tuple[Id, Id], dict[str, Any]] = {}
    taken: set[tuple[Id, Id, int]] = set()
    changes: dict[str, list[str]] = {"category_id": [], "iscrowd": []}
    for place, box in enumerate(boxes, start=1):
        where = record_name(box, "annotation", place)
        if not isinstance(box, dict):
            report("records that are not objects", where, f"is {shown(box)}, expected an object")
            continue
        image_id = known_id(box, "image_id", images, "images", where, report)
        instance = whole_number(box, "instance_id", where, report, "ids of a wrong type")
        absent = [key for key in ("category_id", "segmentation") if key not in box]
        for key in absent:
            report("missing keys", where, f"has no `{key}`")
        if image_id is None or instance is None or absent or images[image_id].video_id not in lengths:
            continue
        video_id, frame = images[image_id][:2]
        if (stated := box.get("video_id")) not in (None, video_id):
            problem = f"has `video_id` {typed(stated)} but its image is of video {typed(video_id)}"
            report("unknown ids", where, problem)
            continue
        new = {
            "id": len(objects) + 1,
            "instance_id": instance,
            "video_id": video_id,
            "category_id": box["category_id"],
            "iscrowd": box.get("iscrowd", 0),
            **{key: [None] * lengths[video_id] for key in ("segmentations", "bboxes", "areas")},
        }
        found = objects.setdefault((video_id, instance), new)
        if (video_id, instance, frame) in taken:
            report("wrong frames", where, f"is a second box of instance {instance} in its frame")
            continue
        taken.add((video_id, instance, frame))
        for key, changed in changes.items():
            if (value := box.get(key, 0)) != found[key]:
                changed.append(f"{where} has {shown(value)} after {shown(found[key])}")
        for key in ("segmentation", "bbox", "area"):
            found[f"{key}es" if key == "bbox" else f"{key}s"][frame] = box.get(key)
    for key, changed in changes.items():
        if changed:
            notes.append(
                f"{len(changed)} boxes whose `{key}` is not that of their instance's first box, which counts "
                f"for all: {changed[0]}"
            )
    for found in objects.values():
        for key in ("bboxes", "areas"):
            if all(value is None for value in found[key]):
                del found[key]
    return list(objects.values())
