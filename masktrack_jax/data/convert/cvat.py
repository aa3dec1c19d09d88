"""CVAT: XML files in the format "CVAT for video 1.1", whose <track>s contain boxes, polygons or masks.

    annotations.xml    images/frame_000000.png

CVAT writes every frame of a track. In a file with key frames only, frames between are filled as in CVAT:
boxes and polygons with the same number of points are interpolated, masks are repeated, `outside` ends a
track. An image belongs to the frame whose number is in its name, the number in the video or the place in the
task. Frames without an image, such as deleted ones, are left out.
"""

import bisect
import functools
import pathlib
from collections.abc import Callable
from typing import NamedTuple, NoReturn, TypeVar
from xml.etree import ElementTree
from xml.parsers import expat

from masktrack_jax.data.convert.cvat_shapes import draw, is_outside
from masktrack_jax.data.convert.source import (
    Clip,
    ObjectTrack,
    Report,
    Source,
    check_file,
    encode_seen,
    list_files,
    list_folders,
    number_images,
)
from masktrack_jax.masks.rle import Rle
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.video.images import IMAGE_SUFFIXES

SHAPES = ("box", "polygon", "mask")
NO_SIZE = 2**31  # frames of a task whose file does not state their number

Shapes = dict[int, ElementTree.Element]  # by place in the task, in order
Extract = Callable[[pathlib.Path, Callable[[int], bool]], dict[int, pathlib.Path]]
Value = TypeVar("Value")


class Task(NamedTuple):
    """The frames of a task: the one at place p, below `size`, is frame start + p·step of the video."""

    size: int
    start: int
    step: int

    def place(self, number: int) -> int | None:
        """The place of a frame of the video, None if the task does not have it."""
        place, rest = divmod(number - self.start, self.step)
        return place if rest == 0 and 0 <= place < self.size else None

    def __str__(self) -> str:
        last = self.start + (self.size - 1) * self.step
        step = f" in steps of {self.step}" if self.step > 1 else ""
        return (
            f"frames from {self.start} on{step}"
            if self.size == NO_SIZE
            else f"frames {self.start} to {last}{step}"
        )


def read(
    input_path: str | pathlib.Path,
    report: Report,
    images: str | pathlib.Path | None = None,
    extract: Extract | None = None,
) -> Source:
    """Read an XML file, or the folder of an unpacked export or of several; each file is one clip.

    The frames are in `images`, by default the folder `images` beside the file. It may hold a folder or a
    video file with the name of each clip, or be the video file; `extract(video, wanted)` writes its wanted
    frames as images and returns them by frame number. Raises UserError.
    """
    paths = _find(pathlib.Path(input_path), report)
    labels: list[str] = []
    clips = []
    for path in paths:
        root = _parse(path)
        task = _task(path, root)
        name = path.resolve().parent.name if path.stem.lower() == "annotations" else path.stem
        frames = _frames(path, task, _place_of(path, name, images), extract, report)
        objects = []
        for element in root:
            if element.tag not in ("version", "meta", "track"):
                report.left_out[f"elements that are not tracks ({element.tag:.20})"] += 1
        for element in root.iterfind("track"):
            shapes = _shapes(path, element, task, frames, report)
            if shapes:
                objects.append((_attribute(path, element, "label", _name), shapes))
        labels += [*_labels(root), *(label for label, _ in objects)]
        tracks = functools.partial(_tracks, path, objects, [*frames], report)
        clips.append(Clip(name, tuple((x.name, x) for x in frames.values()), tracks))
    return Source([(None, label) for label in labels], clips)


def _find(path: pathlib.Path, report: Report) -> list[pathlib.Path]:
    """The XML files at a path."""
    if not path.is_dir():
        return [path]
    own = list_files(path, [".xml"])
    named = [x for x in own if x.stem.lower() == "annotations"]
    below = [x for folder in list_folders(path) for x in list_files(folder, [".xml"])]
    found = named or own or below
    report.left_out["XML files beside or below the export"] += len(own) + len(below) - len(found)
    if not found:
        raise UserError(f"{path}: holds no annotations.xml; check --input")
    return found


def _parse(path: pathlib.Path) -> ElementTree.Element:
    """The root of the XML. Rejects a document type, because its entities could expand without limit."""

    def refuse(*_: object) -> NoReturn:
        raise UserError(f"{path}: has a document type (DOCTYPE), which no CVAT export has; remove it")

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    check_file(path)
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
    if len({element.get("task_id") for element in root.iterfind("track")}) > 1:
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
    return [name.strip() for name in names if name and name.strip()]


def _task(path: pathlib.Path, root: ElementTree.Element) -> Task:
    """The frames of the task that the file states."""
    try:
        size = int(_meta(root, "size") or NO_SIZE)
        start = int(_meta(root, "start_frame") or 0)
        step = int((_meta(root, "frame_filter") or "step=1").removeprefix("step="))
        if not (1 <= size <= NO_SIZE and 0 <= start <= NO_SIZE and 1 <= step <= NO_SIZE):
            raise ValueError(f"{size} frames from {start} in steps of {step}")
    except ValueError as error:
        raise UserError(f"{path}: its <meta> cannot be read ({error!s:.80}); export it again") from None
    return Task(size, start, step)


def _place_of(path: pathlib.Path, name: str, images: str | pathlib.Path | None) -> pathlib.Path:
    """Where the frames of a clip are: a folder or a video file."""
    if images is None:
        return path.parent / "images"
    images = pathlib.Path(images)
    if images.is_dir() and not (images / name).is_dir():
        videos = [x for x in images.iterdir() if x.stem == name and x.suffix.lower() not in IMAGE_SUFFIXES]
        return next((x for x in sorted(videos) if x.is_file()), images)
    return images / name if images.is_dir() else images


def _frames(
    path: pathlib.Path, task: Task, place: pathlib.Path, extract: Extract | None, report: Report
) -> dict[int, pathlib.Path]:
    """The images of the task's frames by their place in it, in order."""
    if place.is_file() and extract is not None:
        found = extract(place, lambda number: task.place(number) is not None)
        chosen = _by_frame(task, found)
    else:
        found = number_images(place)
        chosen = _match(path, task, place, found)
    if not chosen:
        raise UserError(f"{path}: has {task}, but {place} has none of them; give their images as --images")
    report.left_out["images that are not frames of the task"] += len(found) - len(chosen)
    if task.size != NO_SIZE:
        report.left_out["frames without an image"] += task.size - len(chosen)
    return dict(sorted(chosen.items()))


def _by_frame(task: Task, images: dict[int, pathlib.Path]) -> dict[int, pathlib.Path]:
    places = {number: task.place(number) for number in images}
    return {place: images[number] for number, place in places.items() if place is not None}


def _match(
    path: pathlib.Path, task: Task, folder: pathlib.Path, images: dict[int, pathlib.Path]
) -> dict[int, pathlib.Path]:
    """Match images by number. Their numbers count frames of the video or places in the task.

    Whatever is counted, either every image must be a frame, or every frame must have an image. If both ways
    of counting are possible, the one that leaves nothing over is taken.
    """
    by_frame = _by_frame(task, images)
    by_place = {number: image for number, image in images.items() if number < task.size}
    if len(by_place) == len(images) == task.size:
        return by_place
    if len(by_frame) == task.size:
        return by_frame
    fits = [found for found in (by_frame, by_place) if len(found) == len(images)]
    if fits and fits[0] == fits[-1]:
        return fits[0]
    numbers = f", numbered {min(images)} to {max(images)}" if images else ""
    raise UserError(
        f"{path}: has {task} but {folder} holds {len(images)} images{numbers}; give the folder of "
        "these frames as --images, each image named by the number of its frame"
    )


def _attribute(
    path: pathlib.Path, element: ElementTree.Element, name: str, kind: Callable[[str], Value]
) -> Value:
    try:
        return kind(element.attrib[name])
    except (KeyError, ValueError):
        found = f"{element.get(name)!r:.40}"
        raise UserError(
            f"{path}: a <{element.tag}> has {name}={found}, which is not valid; export it again"
        ) from None


def _name(text: str) -> str:
    if not text.strip():
        raise ValueError
    return text.strip()


def _shapes(
    path: pathlib.Path,
    track: ElementTree.Element,
    task: Task,
    frames: dict[int, pathlib.Path],
    report: Report,
) -> Shapes:
    """The shapes of a track that are converted; the others are counted."""
    shapes: Shapes = {}
    where = f"{path}: track {track.get('id')!r:.40}"
    for element in track:
        if element.tag == "attribute":
            continue
        if element.tag not in SHAPES:
            report.left_out[f"shapes that are not boxes, polygons or masks ({element.tag:.20})"] += 1
            continue
        number = _attribute(path, element, "frame", int)
        place = task.place(number)
        outside = is_outside(path, element)
        if place is None:
            # CVAT ends a track with an outside shape, possibly one frame after the last.
            if outside:
                continue
            raise UserError(f"{where}: frame {number} is not among the {task}; export it again")
        if place in shapes:
            raise UserError(f"{where}: frame {number} has two shapes; keep one")
        if place not in frames and not outside:
            report.left_out["shapes on frames without an image"] += 1
        shapes[place] = element
    return dict(sorted(shapes.items()))


def _tracks(
    path: pathlib.Path,
    objects: list[tuple[str, Shapes]],
    places: list[int],
    report: Report,
    height: int,
    width: int,
) -> list[ObjectTrack]:
    """One track for each (label, shapes), with a mask for each of the frames at these places in the task."""
    tracks = []
    for label, shapes in objects:
        keys = [*shapes]
        masks: list[Rle | None] = [None] * len(places)
        for frame, place in enumerate(places):
            after = bisect.bisect_right(keys, place)
            if after == 0 or is_outside(path, shapes[keys[after - 1]]):
                continue
            now = keys[after - 1]
            later = keys[after] if after < len(keys) else now + 1
            moved = (place - now) / (later - now)
            mask = draw(path, shapes[now], shapes.get(later), moved, report, height, width)
            masks[frame] = None if mask is None else encode_seen(mask, report)
        tracks.append(ObjectTrack(label, masks))
    return tracks
