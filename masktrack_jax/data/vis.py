"""The index of a video instance segmentation data set: YouTube-VIS 2019/2021/2022, OVIS, or a generated one.

`read_vis` checks the whole file once, so what comes later may trust it. A bad file is one UserError naming
the file and the record.
"""

import dataclasses
import functools
import json
import pathlib

from masktrack_jax.data.cocovid import from_cocovid, is_cocovid
from masktrack_jax.data.images import check_frame_size, read_image
from masktrack_jax.masks.rle_strings import MOST_PIXELS
from masktrack_jax.masks.segmentations import (
    compact_segmentation,
    decode_segmentation,
    segmentation_area,
    segmentation_box,
)
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import is_inside

__all__ = ["Category", "Video", "VisDataset", "VisObject", "decode_segmentation", "read_vis"]


@dataclasses.dataclass(frozen=True)
class Category:
    """A category as the file names it; its label is its place in the file's list."""

    id: int
    name: str


@dataclasses.dataclass(frozen=True)
class Video:
    """One video; `file_names` are relative to the data set's frames folder, sizes are in pixels."""

    id: int
    name: str
    height: int
    width: int
    file_names: tuple[str, ...]

    @property
    def length(self):
        """The number of frames."""
        return len(self.file_names)


@dataclasses.dataclass(frozen=True)
class VisObject:
    """One object of a video; per-frame tuples have the video's length, None where it is not seen.

    `segmentations` hold what `decode_segmentation` reads; `boxes` are x1, y1, x2, y2 in pixels, inside the
    frame.
    """

    annotation_id: int
    video_id: int
    label: int  # 0…K-1, in the order of the file's categories
    iscrowd: bool
    segmentations: tuple
    boxes: tuple


@dataclasses.dataclass(frozen=True)
class VisDataset:
    """A read annotations file. `labelled` is False for one without annotations (public validation, test).

    `packed` has the frames of a packed data set (`data.packed.PackedFrames`); their paths are names only.
    """

    categories: tuple[Category, ...]
    videos: tuple[Video, ...]
    frames_root: pathlib.Path
    labelled: bool
    objects: dict = dataclasses.field(repr=False)  # video id -> tuple of VisObject
    annotations_path: pathlib.Path | None = None
    packed: object = None

    @property
    def labels(self):
        """(category id, name) of each label, in their order."""
        return [(category.id, category.name) for category in self.categories]

    def objects_of(self, video):
        """The objects of a video: tuple of VisObject, empty when it has none."""
        return self.objects.get(video.id, ())

    def frame_path(self, video, frame):
        """The path of frame `frame` (from 0) of a video."""
        return self.frames_root / video.file_names[frame]

    def has_frame(self, video, frame):
        """Whether the frame's file is there."""
        return self.packed is not None or self.frame_path(video, frame).is_file()

    def read_frame(self, video, frame):
        """Decode frame `frame` (from 0) of a video: (H, W, 3) uint8 RGB, of the size that the file says.

        Raises a UserError that names it.
        """
        path = self.frame_path(video, frame)
        image = read_image(path, None if self.packed is None else self.packed.open(video, frame))
        check_frame_size(image, video.height, video.width, path)
        return image

    def only(self, videos):
        """The same data set with these of its videos."""
        objects = {video.id: self.objects[video.id] for video in videos if video.id in self.objects}
        return dataclasses.replace(self, videos=tuple(videos), objects=objects)


def read_vis(annotations_path, frames_root=None):
    """Read and check an annotations file in the YouTube-VIS format, or in mmtracking's: VisDataset.

    `frames_root` is the folder that `file_names` are relative to; by default `JPEGImages` beside the file, or
    in a folder of the file's own name beside it. The frames themselves are not looked at. Raises UserError.
    """
    path = pathlib.Path(annotations_path)
    content = load_json(path)
    fail = functools.partial(file_error, path)
    if not isinstance(content, dict):
        raise fail("the file", "is not an object with `videos` and `categories`")
    if is_cocovid(content):
        content = from_cocovid(content, fail)
    records = {key: _records(content, key, fail) for key in ("categories", "videos")}
    categories = tuple(_category(record, fail) for record in _unique(records["categories"], "category", fail))
    videos = tuple(_video(record, fail) for record in _unique(records["videos"], "video", fail))
    labels = {category.id: label for label, category in enumerate(categories)}
    by_id = {video.id: video for video in videos}
    labelled = bool(content.get("annotations"))
    objects = {}
    for record in _unique(_records(content, "annotations", fail) if labelled else (), "annotation", fail):
        found = _object(record, by_id, labels, fail)
        objects.setdefault(found.video_id, []).append(found)
    return VisDataset(
        categories=categories,
        videos=videos,
        frames_root=default_frames_root(path) if frames_root is None else pathlib.Path(frames_root),
        labelled=labelled,
        objects={video_id: tuple(found) for video_id, found in objects.items()},
        annotations_path=path,
    )


def file_error(path, record, problem):
    """The one-line error of a record of a file."""
    return UserError(f"{path}: {record} {problem}; correct the annotations file")


def load_json(path):
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such annotations file; check the path") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise UserError(f"{path}: is not valid JSON at {where} ({error.msg}); correct the file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not JSON text in UTF-8; check that it is the annotations file") from None
    except (RecursionError, ValueError) as error:  # lists a thousand deep; a number of a thousand digits
        raise UserError(f"{path}: is not JSON that can be read ({error}); correct the file") from None


def default_frames_root(path):
    """The folder of frames of an annotations file: `JPEGImages` beside it or in a folder of its own name."""
    path = pathlib.Path(path)
    beside = path.parent / "JPEGImages"
    named = path.parent / path.stem / "JPEGImages"
    return named if named.is_dir() and not beside.is_dir() else beside


def _records(content, key, fail):
    """The list of objects under `key` of the file."""
    records = content.get(key)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise fail("the file", f"has no list of objects `{key}`")
    return records


def _unique(records, kind, fail):
    """Yield the records of a list; each must have an integer id of its own."""
    seen = set()
    for place, record in enumerate(records):
        if not _is_integer(record.get("id")):
            raise fail(f"{kind} number {place + 1}", "has no integer `id`")
        if record["id"] in seen:
            raise fail(f"{kind} {record['id']}", "appears twice")
        seen.add(record["id"])
        yield record


def _is_integer(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _category(record, fail):
    if not isinstance(record.get("name"), str):
        raise fail(f"category {record['id']}", "has no `name`")
    return Category(record["id"], record["name"])


def _video(record, fail):
    where = f"video {record['id']}"
    for key in ("height", "width"):
        if not _is_integer(record.get(key)) or record[key] < 1:
            raise fail(where, f"has no positive integer `{key}`")
    if record["height"] * record["width"] > MOST_PIXELS:
        raise fail(where, f"has frames of {record['height']} x {record['width']}, more than any camera's")
    names = record.get("file_names")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise fail(where, "has no list of frames `file_names`")
    if outside := next((name for name in names if not is_inside(name)), None):
        raise fail(where, f"has frame {outside!r:.80} in `file_names`, which is not below the frames folder")
    if record.get("length", len(names)) != len(names):
        raise fail(where, f"has `length` {record['length']} but {len(names)} `file_names`")
    name = record.get("name") or str(pathlib.PurePosixPath(names[0]).parent)
    return Video(record["id"], name, record["height"], record["width"], tuple(names))


def _object(record, videos, labels, fail):
    where = f"annotation {record['id']}"
    for key in ("video_id", "category_id", "segmentations"):
        if key not in record:
            raise fail(where, f"has no `{key}`")
    video, label = (
        table.get(record[key]) if _is_integer(record[key]) else None
        for table, key in ((videos, "video_id"), (labels, "category_id"))
    )
    if video is None:
        raise fail(where, f"has `video_id` {record['video_id']!r}, which is not among the videos")
    if label is None:
        raise fail(where, f"has `category_id` {record['category_id']!r}, which is not among the categories")
    raw = {key: _per_frame(record, key, video, where, fail) for key in ("segmentations", "bboxes", "areas")}
    boxes, segmentations = [], []
    for frame in range(video.length):
        segmentation, box = None, None
        if raw["segmentations"][frame] is not None:
            segmentation, problem = compact_segmentation(
                raw["segmentations"][frame], video.height, video.width
            )
            if problem:
                raise fail(f"{where}, frame {frame},", problem)
            box = _box(raw, frame, segmentation, video, f"{where}, frame {frame},", fail)
        boxes.append(box)
        segmentations.append(segmentation if box is not None else None)
    return VisObject(
        record["id"], video.id, label, bool(record.get("iscrowd", 0)), tuple(segmentations), tuple(boxes)
    )


def _per_frame(record, key, video, where, fail):
    """A record's list `key`, one entry a frame; `bboxes` and `areas` may be missing (None)."""
    values = record.get(key)
    if values is None and key != "segmentations":
        return None
    if not isinstance(values, list) or len(values) != video.length:
        found = f"{len(values)} entries" if isinstance(values, list) else "no list"
        raise fail(where, f"has {found} in `{key}` but its video {video.id} has {video.length} frames")
    return values


def _box(raw, frame, segmentation, video, where, fail):
    """The box of an object in a frame, clipped to it: x1, y1, x2, y2, or None where it is not to be used.

    The published code's filter: no box, width or height below 1, or area not above 0.
    """
    area = raw["areas"][frame] if raw["areas"] is not None else None
    if area is None:
        area = segmentation_area(segmentation, video.height, video.width)
    if raw["bboxes"] is None:
        box = segmentation_box(segmentation, video.height, video.width)
    else:
        box = raw["bboxes"][frame]
    if box is None:
        return None
    numbers = (*box, area) if isinstance(box, list | tuple) and len(box) == 4 else (None,)
    if not all(isinstance(value, int | float) for value in numbers):
        raise fail(
            where, f"has box {box!r} and area {area!r}, which are not x, y, width, height and a number"
        )
    x, y, width, height = map(float, box)
    x1, x2 = max(x, 0.0), min(x + width, float(video.width))
    y1, y2 = max(y, 0.0), min(y + height, float(video.height))
    if not (area > 0 and x2 - x1 >= 1 and y2 - y1 >= 1):
        return None
    return x1, y1, x2, y2
