"""The videos and objects of a data set in the YouTube-VIS format, read from its annotations file.

`read_vis` checks the whole file once, so later code can rely on it. An invalid file raises one UserError that
names the file and the record.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, Protocol

import numpy as np

from masktrack_jax.data.images import check_frame_size, read_image
from masktrack_jax.data.json_files import read_labels, record_error
from masktrack_jax.masks.rle import Rle, mask_box
from masktrack_jax.masks.rle_strings import MOST_PIXELS
from masktrack_jax.masks.segmentations import BrokenSegmentation, read_masks
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import is_inside

Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels
Fail = Callable[[str, str], UserError]  # returns the exception for a record and its problem


@dataclasses.dataclass(frozen=True)
class Category:
    """A category of the file; its label is its index in the file's list."""

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
    def length(self) -> int:
        """The number of frames."""
        return len(self.file_names)


@dataclasses.dataclass(frozen=True)
class VisObject:
    """One object of a video. Per-frame tuples have the video's length, with None where it is not visible.

    Boxes are inside the frame, and masks have its size.
    """

    annotation_id: int
    video_id: int
    label: int  # 0…K-1, in the order of the file's categories
    iscrowd: bool
    segmentations: tuple[Rle | None, ...]
    boxes: tuple[Box | None, ...]


class FrameFiles(Protocol):
    """Encoded frames that are not in separate files (`pack.read.PackedFrames`)."""

    def open(self, video: Video, frame: int) -> BinaryIO:
        """A file object with the bytes of frame `frame` (from 0) of a video."""


@dataclasses.dataclass(frozen=True)
class VisDataset:
    """The content of an annotations file. `labelled` is False if it has no annotations (validation, test).

    `packed` gives the frames of a packed data set; its frame paths are not files.
    """

    categories: tuple[Category, ...]
    videos: tuple[Video, ...]
    frames_root: pathlib.Path
    labelled: bool
    objects: dict[int, tuple[VisObject, ...]] = dataclasses.field(repr=False)  # by video id
    annotations_path: pathlib.Path
    packed: FrameFiles | None = None

    @property
    def labels(self) -> list[tuple[int, str]]:
        """(category id, name) of each label, in order."""
        return [(category.id, category.name) for category in self.categories]

    def objects_of(self, video: Video) -> tuple[VisObject, ...]:
        """The objects of a video."""
        return self.objects.get(video.id, ())

    def frame_path(self, video: Video, frame: int) -> pathlib.Path:
        """The path of frame `frame` (from 0) of a video."""
        return self.frames_root / video.file_names[frame]

    def has_frame(self, video: Video, frame: int) -> bool:
        """Whether the frame's file exists."""
        return self.packed is not None or self.frame_path(video, frame).is_file()

    def read_frame(self, video: Video, frame: int) -> np.ndarray:
        """Decode frame `frame` (from 0) of a video: (H, W, 3) uint8 RGB, with the size given in the file.

        Raises a UserError that names the frame.
        """
        path = self.frame_path(video, frame)
        image = read_image(path, None if self.packed is None else self.packed.open(video, frame))
        check_frame_size(image, video.height, video.width, path)
        return image

    def only(self, videos: Iterable[Video]) -> "VisDataset":
        """The data set restricted to these videos."""
        videos = tuple(videos)
        objects = {video.id: self.objects[video.id] for video in videos if video.id in self.objects}
        return dataclasses.replace(self, videos=videos, objects=objects)


def read_vis(
    annotations_path: str | pathlib.Path, frames_root: str | pathlib.Path | None = None
) -> VisDataset:
    """Read and check an annotations file in the YouTube-VIS format or in mmtracking's.

    `frames_root` is the folder that `file_names` are relative to; see `default_frames_root`. The frames
    themselves are not read. Raises UserError.
    """
    path = pathlib.Path(annotations_path)
    content = read_labels(path)
    fail = functools.partial(record_error, path)
    records = {key: _records(content, key, fail) for key in ("categories", "videos")}
    categories = tuple(_category(record, fail) for record in _unique(records["categories"], "category", fail))
    videos = tuple(_video(record, fail) for record in _unique(records["videos"], "video", fail))
    labels = {category.id: label for label, category in enumerate(categories)}
    by_id = {video.id: video for video in videos}
    labelled = bool(content.get("annotations"))
    objects: dict[int, list[VisObject]] = {}
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


def default_frames_root(path: str | pathlib.Path) -> pathlib.Path:
    """The frames folder of an annotations file: `JPEGImages` beside it or in a folder with its name."""
    path = pathlib.Path(path)
    beside = path.parent / "JPEGImages"
    named = path.parent / path.stem / "JPEGImages"
    return named if named.is_dir() and not beside.is_dir() else beside


def _records(content: dict, key: str, fail: Fail) -> list[dict]:
    """The list of objects under `key` of the file."""
    records = content.get(key)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise fail("the file", f"has no list of objects `{key}`")
    return records


def _unique(records: Iterable[dict], kind: str, fail: Fail) -> Iterator[dict]:
    """Yield the records of a list; each must have a unique integer id."""
    seen = set()
    for place, record in enumerate(records):
        if not _is_integer(record.get("id")):
            raise fail(f"{kind} number {place + 1}", "has no integer `id`")
        if record["id"] in seen:
            raise fail(f"{kind} {record['id']}", "appears twice")
        seen.add(record["id"])
        yield record


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _category(record: dict, fail: Fail) -> Category:
    if not isinstance(record.get("name"), str):
        raise fail(f"category {record['id']}", "has no `name`")
    return Category(record["id"], record["name"])


def _video(record: dict, fail: Fail) -> Video:
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


def _object(record: dict, videos: dict[int, Video], labels: dict[int, int], fail: Fail) -> VisObject:
    where = f"annotation {record['id']}"
    for key in ("video_id", "category_id", "segmentations"):
        if key not in record:
            raise fail(where, f"has no `{key}`")
    video = videos.get(record["video_id"]) if _is_integer(record["video_id"]) else None
    label = labels.get(record["category_id"]) if _is_integer(record["category_id"]) else None
    if video is None:
        raise fail(where, f"has `video_id` {record['video_id']!r}, which is not among the videos")
    if label is None:
        raise fail(where, f"has `category_id` {record['category_id']!r}, which is not among the categories")
    raw, stated_boxes, stated_areas = (
        _per_frame(record, key, video, where, fail) for key in ("segmentations", "bboxes", "areas")
    )
    seen = [frame for frame, mask in enumerate(raw) if mask is not None]
    try:
        masks = read_masks([raw[frame] for frame in seen], (video.height, video.width))
    except BrokenSegmentation as error:
        raise fail(f"{where}, frame {seen[error.place]},", f"is not a mask ({error})") from None
    segmentations: list[Rle | None] = [None] * video.length
    boxes: list[Box | None] = [None] * video.length
    for frame, rle, pixels in zip(seen, masks.rles, masks.areas):
        box = stated_boxes[frame] if record.get("bboxes") is not None else mask_box(rle)
        area = float(pixels) if stated_areas[frame] is None else stated_areas[frame]
        boxes[frame] = _box(box, area, video, f"{where}, frame {frame},", fail)
        segmentations[frame] = rle if boxes[frame] is not None else None
    return VisObject(
        record["id"], video.id, label, bool(record.get("iscrowd", 0)), tuple(segmentations), tuple(boxes)
    )


def _per_frame(record: dict, key: str, video: Video, where: str, fail: Fail) -> list:
    """A record's list `key`, one entry per frame; all None if it has no `bboxes` or `areas`."""
    values = record.get(key)
    if values is None and key != "segmentations":
        return [None] * video.length
    if not isinstance(values, list) or len(values) != video.length:
        found = f"{len(values)} entries" if isinstance(values, list) else "no list"
        raise fail(where, f"has {found} in `{key}` but its video {video.id} has {video.length} frames")
    return values


def _box(box: object, area: object, video: Video, where: str, fail: Fail) -> Box | None:
    """The box of an object in a frame, clipped to it, or None if the published code drops the object.

    It drops objects without a box, with a width or height below 1, or with an area of 0 or less.
    """
    if box is None:
        return None
    numbers = (*box, area) if isinstance(box, list | tuple) and len(box) == 4 else (None,)
    if not all(isinstance(value, int | float) for value in numbers):
        raise fail(
            where, f"has box {box!r} and area {area!r}, which are not x, y, width, height and a number"
        )
    x, y, width, height = map(float, numbers[:4])
    x1, x2 = max(x, 0.0), min(x + width, float(video.width))
    y1, y2 = max(y, 0.0), min(y + height, float(video.height))
    if not (numbers[4] > 0 and x2 - x1 >= 1 and y2 - y1 >= 1):
        return None
    return x1, y1, x2, y2
