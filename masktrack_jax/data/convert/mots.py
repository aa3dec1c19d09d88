"""KITTI MOTS and MOTSChallenge: text files with a line `frame id class height width rle` for each mask.

    <video>.txt  with the frames in IMAGES/<video>/000000.png               (KITTI MOTS)
    <video>/gt/gt.txt  with the frames in <video>/img1/000001.jpg           (MOTSChallenge)

The frame in a line is the number in the name of its image. Class 1 is car and class 2 is pedestrian. Class 10
marks regions to ignore, which are left out.
"""

import functools
import pathlib
from typing import NamedTuple

from masktrack_jax.data.convert.source import (
    EMPTY,
    Clip,
    ObjectTrack,
    Report,
    Source,
    in_order,
    list_files,
    list_folders,
    number_images,
)
from masktrack_jax.data.json_files import read_text
from masktrack_jax.masks.rle import Rle
from masktrack_jax.masks.segmentations import BrokenSegmentation, read_masks
from masktrack_jax.runtime.errors import UserError

CLASSES = {1: "car", 2: "pedestrian"}
IGNORE = 10
LARGEST = 2**31  # of ids and frame numbers


class VideoFiles(NamedTuple):
    """A video: its name, its text file and the folder of its frames."""

    name: str
    text: pathlib.Path
    frames: pathlib.Path


class Sighting(NamedTuple):
    """An object in one frame, and its line in the text file."""

    line: int
    rle: Rle


class MotsObject(NamedTuple):
    """An object: its class, and its sightings by frame number."""

    number: int
    sightings: dict[int, Sighting]


def read(input_path: str | pathlib.Path, report: Report, images: str | pathlib.Path | None = None) -> Source:
    """Read a text file or a folder of them. Raises UserError."""
    classes, clips = dict(CLASSES), []
    for name, path, folder in _find(pathlib.Path(input_path), images):
        objects = _parse(path, report)
        classes |= {found.number: _class_name(found.number) for found in objects.values()}
        frames = number_images(folder)
        for found in objects.values():
            for number, seen in found.sightings.items():
                if number not in frames:
                    raise UserError(
                        f"{path}: line {seen.line}: frame {number} has no image in {folder}; add it"
                    )
        tracks = functools.partial(_tracks, path, objects, list(frames), report)
        clips.append(Clip(name, tuple((image.name, image) for image in frames.values()), tracks))
    return Source(sorted(classes.items()), clips)


def _class_name(number: int) -> str:
    return CLASSES.get(number, f"class {number}")


def _find(path: pathlib.Path, images: str | pathlib.Path | None) -> list[VideoFiles]:
    """The videos at a path, a text file or a folder, in order."""
    if path.is_dir():
        files = list_files(path, [".txt"])
        for folder in [path, *list_folders(path)]:
            files += [file for file in [folder / "gt" / "gt.txt"] if file.is_file()]
    else:
        files = [path]
    if not files:
        raise UserError(f"{path}: holds no <video>.txt and no <video>/gt/gt.txt; check --input")
    videos: dict[str, VideoFiles] = {}
    for file in files:
        challenge = file.parent.name == "gt"
        name = file.resolve().parent.parent.name if challenge else file.stem
        if challenge and images is None:
            folder = file.parent.parent / "img1"
        elif images is None:
            raise UserError(
                f"{file}: the folder of its frames is not known; give the parent of <video>/ as --images"
            )
        else:
            folder = pathlib.Path(images) / name
            folder = folder / "img1" if (folder / "img1").is_dir() else folder
        other = videos.setdefault(name, VideoFiles(name, file, folder))
        if other.text != file:
            raise UserError(f"{file}: {other.text} is a file of the same video; remove one")
    return [videos[name] for name in in_order(videos)]


def _parse(path: pathlib.Path, report: Report) -> dict[int, MotsObject]:
    """The objects of a text file by id, in order."""
    objects: dict[int, MotsObject] = {}
    for line, text in enumerate(read_text(path).splitlines(), start=1):
        if not text.strip():
            continue
        try:
            *numbers, counts = text.split()
            frame, object_id, number, height, width = map(int, numbers)
            if not 0 <= min(frame, object_id, number) <= max(frame, object_id, number) <= LARGEST:
                raise ValueError
        except ValueError:
            boxes = text.count(",") >= 5
            cure = "it holds boxes (MOT), so give the file of masks (MOTS)" if boxes else "correct the line"
            raise UserError(
                f"{path}: line {line}: is not `frame id class height width rle`; {cure}"
            ) from None
        if number == IGNORE:
            report.left_out[f"regions to ignore (class {IGNORE})"] += 1
            continue
        known, sightings = objects.setdefault(object_id, MotsObject(number, {}))
        if known != number:
            raise UserError(f"{path}: line {line}: object {object_id} was of class {known}, now of {number}")
        if frame in sightings:
            raise UserError(f"{path}: line {line}: object {object_id} appears twice in frame {frame}")
        sightings[frame] = Sighting(line, {"size": [height, width], "counts": counts})
    return dict(sorted(objects.items()))


def _tracks(
    path: pathlib.Path,
    objects: dict[int, MotsObject],
    frames: list[int],
    report: Report,
    height: int,
    width: int,
) -> list[ObjectTrack]:
    """One track per object; `frames` are the numbers of the clip's frames."""
    tracks = []
    for number, sightings in objects.values():
        seen = {place: sightings[frame] for place, frame in enumerate(frames) if frame in sightings}
        try:
            _, areas = read_masks([found.rle for found in seen.values()], (height, width))
        except BrokenSegmentation as error:
            line = list(seen.values())[error.place].line
            raise UserError(f"{path}: line {line}: is not a mask ({error}); correct the line") from None
        masks: list[Rle | None] = [None] * len(frames)
        for (place, found), area in zip(seen.items(), areas):
            masks[place] = found.rle if area else None
            report.left_out[EMPTY] += not area
        tracks.append(ObjectTrack(_class_name(number), masks))
    return tracks
