"""The videos and objects of a data set in the YouTube-VIS format, as training uses them."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterable, Sequence
from typing import BinaryIO, Protocol

import numpy as np

from masktrack_jax.data.json_files import read_labels
from masktrack_jax.data.labels import ABSENT, LabelsFile
from masktrack_jax.data.values import LARGEST_ID, Id, record_error, shown
from masktrack_jax.masks.rle import Rle, mask_boxes
from masktrack_jax.runtime import copies
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.findings import Findings
from masktrack_jax.runtime.numbers import as_integer
from masktrack_jax.video.images import read_image

# Some tools round boxes to whole pixels; others end them at the last pixel instead of after it.
BOX_TOLERANCE = 1.0  # pixels, of each edge
READ_OTHERWISE = "records that are read in another way"
NO_FRAMES = "has no list of frames `file_names`"
Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels


@dataclasses.dataclass(frozen=True)
class Category:
    """A category of the file; its label is its index in the file's list."""

    id: int
    name: str


@dataclasses.dataclass(frozen=True)
class Video:
    """One video; `file_names` are relative to the data set's frames folder, sizes are in pixels."""

    id: Id
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
    video_id: Id
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

    `packed` gives the frames of a packed data set; its frame paths are not files. `left_out` has notes on
    what training leaves out of the annotations file or reads in another way.
    """

    categories: tuple[Category, ...]
    videos: tuple[Video, ...]
    frames_root: pathlib.Path
    labelled: bool
    objects: dict[Id, tuple[VisObject, ...]] = dataclasses.field(repr=False)  # by video id
    annotations_path: pathlib.Path
    packed: FrameFiles | None = None
    left_out: Findings = dataclasses.field(default_factory=Findings, compare=False, repr=False)

    @property
    def labels(self) -> list[tuple[int, str]]:
        """(category id, name) of each label, in order."""
        return [(category.id, category.name) for category in self.categories]

    def objects_of(self, video: Video) -> tuple[VisObject, ...]:
        """The objects of a video."""
        return self.objects.get(video.id, ())

    def frame_path(self, video: Video, frame: int) -> pathlib.Path:
        """The path of frame `frame` (from 0) of a video."""
        return find_frame(self.frames_root, video.file_names[frame])

    def has_frame(self, video: Video, frame: int) -> bool:
        """Whether the frame's file exists."""
        return self.packed is not None or copies.is_file(self.frame_path(video, frame))

    def read_frame(self, video: Video, frame: int) -> np.ndarray:
        """Decode frame `frame` (from 0) of a video: (H, W, 3) uint8 RGB, with the size given in the file.

        Raises a UserError that names the frame.
        """
        path = self.frame_path(video, frame)
        file = copies.open_copy(path) if self.packed is None else self.packed.open(video, frame)
        with file or contextlib.nullcontext():
            return read_image(path, file, (video.height, video.width))

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
    labels = read_labels(path)
    if unknown := next((video for video in labels["videos"] if not video.get("file_names")), None):
        raise no_frames(path, unknown)
    left_out = Findings()
    for line in labels.notes:
        left_out.note(READ_OTHERWISE, line)
    return VisDataset(
        categories=tuple(Category(record["id"], record["name"]) for record in labels["categories"]),
        videos=tuple(map(_video, labels["videos"])),
        frames_root=default_frames_root(path, labels["videos"])
        if frames_root is None
        else pathlib.Path(frames_root),
        labelled=bool(labels.get("annotations")),
        objects=read_objects(labels, left_out),
        annotations_path=path,
        left_out=left_out,
    )


def default_frames_root(path: str | pathlib.Path, videos: Sequence[dict] = ()) -> pathlib.Path:
    """The frames folder of an annotations file: `JPEGImages` beside it or in a folder with its name.

    It is the file's own folder if only that has the first frame of these `videos`: their names then begin
    with `JPEGImages`.
    """
    path = pathlib.Path(path)
    beside = path.parent / "JPEGImages"
    named = path.parent / path.stem / "JPEGImages"
    first = next((video["file_names"][0] for video in videos if video.get("file_names")), None)
    if first is not None:
        folders = beside, named, path.parent
        if [copies.is_file(find_frame(folder, first)) for folder in folders] == [False, False, True]:
            return path.parent
    return named if copies.is_dir(named) and not copies.is_dir(beside) else beside


def _video(record: dict) -> Video:
    names = tuple(record["file_names"])
    name = record.get("name") or str(pathlib.PurePosixPath(names[0]).parent)
    return Video(record["id"], name, record["height"], record["width"], names)


def find_frame(root: pathlib.Path, name: str) -> pathlib.Path:
    """The path of a frame; its extension may have another case on disk, as after a copy from Windows."""
    path = root / name
    if copies.lexists(path):
        return path
    others = (path.with_suffix(case(path.suffix)) for case in (str.lower, str.upper))
    return next((other for other in others if copies.lexists(other)), path)


def no_frames(path: pathlib.Path, video: dict) -> UserError:
    """The error for a video that evaluation can score, but which names no frames."""
    return record_error(path, f"video {shown(video['id'])}", NO_FRAMES)


def read_objects(labels: LabelsFile, left_out: Findings) -> dict[Id, tuple[VisObject, ...]]:
    """The objects of checked labels by video id, numbered by their places where their ids are not unique.

    Adds to `left_out` a note for every box, mask and object that training leaves out or takes from the mask.
    """
    records = labels.get("annotations") or []
    given = [as_integer(record.get("id")) for record in records]
    ids = [number for number in given if number is not None and abs(number) <= LARGEST_ID]
    if len(set(ids)) < len(records):
        ids = list(range(1, len(records) + 1))
    sizes = {video["id"]: (video["height"], video["width"]) for video in labels["videos"]}
    numbers = {record["id"]: label for label, record in enumerate(labels["categories"])}
    objects: dict[Id, list[VisObject]] = {}
    for number, record, pixels, where in zip(ids, records, labels.pixels, labels.names):
        boxes = _boxes(record, pixels, sizes[record["video_id"]], where, left_out)
        found = VisObject(
            annotation_id=number,
            video_id=record["video_id"],
            label=numbers[record["category_id"]],
            iscrowd=bool(record.get("iscrowd", 0)),
            segmentations=tuple(
                None if box is None else rle for rle, box in zip(record["segmentations"], boxes)
            ),
            boxes=boxes,
        )
        if found.iscrowd:
            left_out.note("crowds, left out", where)
        elif not any(boxes):
            left_out.note("objects without a box in any frame, left out", where)
        objects.setdefault(found.video_id, []).append(found)
    return {video_id: tuple(found) for video_id, found in objects.items()}


def _boxes(
    record: dict, pixels: list[int], size: tuple[int, int], where: str, left_out: Findings
) -> tuple[Box | None, ...]:
    """The box of an object in each frame, clipped to it; None where it is absent or training leaves it out.

    As the published code does, training leaves out boxes with a width or height below 1. A box that
    contradicts its mask is taken from the mask.
    """
    stated, areas = record.get("bboxes"), record.get("areas")
    seen = [frame for frame, number in enumerate(pixels) if number > 0]
    of_masks = mask_boxes([record["segmentations"][frame] for frame in seen]).tolist()
    boxes: list[Box | None] = [None] * len(pixels)
    for frame, number in enumerate(pixels):
        if number == 0:
            left_out.note("masks without a pixel, left out", f"{where}, frame {frame}: write null instead")
        elif number == ABSENT and stated is not None and stated[frame] is not None:
            left_out.note("boxes without a mask, left out", f"{where}, frame {frame}: box {stated[frame]}")
    for frame, of_mask in zip(seen, of_masks):
        box = _clip(of_mask, size)
        if stated is not None:
            given = None if stated[frame] is None else _clip(stated[frame], size)
            if given is None or max(abs(a - b) for a, b in zip(given, box)) > BOX_TOLERANCE:
                example = f"{where}, frame {frame}: box {stated[frame]}, the mask's is {of_mask}"
                left_out.note("boxes that do not fit their masks, taken from the masks", example)
            else:
                box = given
        if areas is not None and areas[frame] is not None and areas[frame] <= 0:
            example = f"{where}, frame {frame}: area {areas[frame]} but a mask of {pixels[frame]} pixels"
            left_out.note("areas of 0 or less beside masks, taken from the masks", example)
        if box[2] - box[0] >= 1 and box[3] - box[1] >= 1:
            boxes[frame] = box
        else:
            example = f"{where}, frame {frame}: x1, y1, x2, y2 {list(box)}"
            left_out.note("boxes smaller than a pixel, left out", example)
    return tuple(boxes)


def _clip(box: Sequence[float], size: tuple[int, int]) -> Box:
    """Convert x, y, width, height to x1, y1, x2, y2 inside a frame of `size` (height, width)."""
    x, y, width, height = map(float, box)
    x1, x2 = max(x, 0.0), min(x + width, float(size[1]))
    y1, y2 = max(y, 0.0), min(y + height, float(size[0]))
    return x1, y1, x2, y2
