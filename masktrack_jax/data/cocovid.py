"""Convert annotations from mmtracking's format ("CocoVID"), which has one record per frame and per box."""

from collections.abc import Callable, Sequence
from typing import Any

# Returns the exception for a record and its problem.
Fail = Callable[[str, str], Exception]


def is_cocovid(content: dict[str, Any]) -> bool:
    """Whether the content of an annotations file has this format.

    A list `images` alone is not enough: a YouTube-VIS file may contain an unused one.
    """
    images = content.get("images")
    if not isinstance(images, list) or not images or "videos" not in content:
        return False
    return _any_has(content.get("annotations"), "image_id") or not _any_has(content["videos"], "file_names")


def from_cocovid(content: dict[str, Any], fail: Fail) -> dict[str, Any]:
    """Convert to the YouTube-VIS format: one record per video and one per object.

    Objects are numbered from 1 in the order of their first box. `fail(record, problem)` returns the exception
    for a faulty record.
    """
    for key in ("videos", "annotations"):
        if not isinstance(content.get(key) or [], list):
            raise fail("the file", f"has no list of objects `{key}`")
    frames: dict[int, dict[int, dict]] = {}  # video id -> its images by frame
    images: dict[int, tuple[int, int]] = {}  # image id -> (video id, frame)
    for image in content["images"]:
        where = f"image {image.get('id') if isinstance(image, dict) else image!r}"
        values = _values(image, ("id", "video_id", "frame_id", "file_name", "height", "width"), where, fail)
        frames.setdefault(values["video_id"], {})[values["frame_id"]] = values
        images[values["id"]] = (values["video_id"], values["frame_id"])
    videos = []
    for record in content["videos"] or []:
        where = f"video {record.get('id') if isinstance(record, dict) else record!r}"
        inside = frames.get(_values(record, ("id",), where, fail)["id"], {})
        if sorted(inside) != list(range(len(inside))) or not inside:
            raise fail(where, f"has {len(inside)} images, whose `frame_id` do not count from 0")
        names = [inside[frame]["file_name"] for frame in range(len(inside))]
        size = {key: inside[0][key] for key in ("height", "width")}
        videos.append({**record, **size, "length": len(names), "file_names": names})
    out = {"categories": content.get("categories"), "videos": videos}
    if content.get("annotations"):
        lengths = {video["id"]: video["length"] for video in videos}
        out["annotations"] = _objects(content["annotations"], images, lengths, fail)
    return out


def _any_has(records: object, key: str) -> bool:
    """Whether any record of a list has a key."""
    return isinstance(records, list) and any(isinstance(one, dict) and key in one for one in records)


def _objects(
    boxes: list, images: dict[int, tuple[int, int]], lengths: dict[int, int], fail: Fail
) -> list[dict[str, Any]]:
    """Merge the records of an object's boxes into one record per object."""
    objects: dict[tuple[int, int], dict] = {}
    for box in boxes:
        where = f"annotation {box.get('id') if isinstance(box, dict) else box!r}"
        box = _values(box, ("image_id", "instance_id", "category_id", "bbox", "segmentation"), where, fail)
        if box["image_id"] not in images:
            raise fail(where, f"has `image_id` {box['image_id']!r}, which is not among the images")
        video_id, frame = images[box["image_id"]]
        if video_id not in lengths:
            raise fail(where, f"belongs to video {video_id!r}, which is not among the videos")
        length = lengths[video_id]
        new = {
            "id": len(objects) + 1,
            "video_id": video_id,
            "category_id": box["category_id"],
            "iscrowd": box.get("iscrowd", 0),
            **{key: [None] * length for key in ("segmentations", "bboxes", "areas")},
        }
        found = objects.setdefault((video_id, box["instance_id"]), new)
        if found["bboxes"][frame] is not None:
            raise fail(where, f"is a second box of instance {box['instance_id']} in its frame")
        found["segmentations"][frame] = box["segmentation"]
        found["bboxes"][frame] = box["bbox"]
        found["areas"][frame] = box.get("area")
    return list(objects.values())


def _values(record: object, keys: Sequence[str], where: str, fail: Fail) -> dict[str, Any]:
    """Check that `record` is an object with these keys, whose ids are integers; returns it."""
    if not isinstance(record, dict):
        raise fail(where, "is not an object")
    for key in keys:
        if key not in record:
            raise fail(where, f"has no `{key}`")
        if key.endswith("id") and not isinstance(record[key], int):
            raise fail(where, f"has `{key}` {record[key]!r:.40}, which is not an integer")
    return record
