"""KITTI MOTS and MOTSChallenge: text files with a line `frame id class height width rle` an object and frame.

    <video>.txt  with the frames in IMAGES/<video>/000000.png               (KITTI MOTS)
    <video>/gt/gt.txt  with the frames in <video>/img1/000001.jpg           (MOTSChallenge)

A line's frame is the number in the name of its image. Class 1 is car, 2 pedestrian; 10 are regions to ignore,
which are left out.
"""

import functools
import pathlib
from collections import Counter

from masktrack_jax.data.convert.writer import Clip, Source, Track, in_order, list_images, read_text
from masktrack_jax.masks.segmentations import compact_segmentation, segmentation_area
from masktrack_jax.runtime.errors import UserError

CLASSES = {1: "car", 2: "pedestrian"}
IGNORE = 10


def read(input_path, images=None):
    """The `Source` of a text file or of a folder of them. Raises UserError."""
    videos = _find(pathlib.Path(input_path), images)
    left_out = Counter()
    classes, clips = dict(CLASSES), []
    for name, path, folder in videos:
        objects = _parse(path, left_out)
        classes |= {number: f"class {number}" for number, _ in objects.values() if number not in classes}
        frames = {}
        for image in list_images(folder):
            if not image.stem.isdigit():
                raise UserError(f"{image}: is not named by its frame's number; rename it")
            frames[int(image.stem)] = image
        for _, lines in objects.values():
            for number, (line, _) in lines.items():
                if number not in frames:
                    raise UserError(f"{path}: line {line}: frame {number} has no image in {folder}; add it")
        tracks = functools.partial(_tracks, path, objects, list(frames))
        clips.append(Clip(name, tuple((image.name, image) for image in frames.values()), tracks))
    return Source(sorted(classes.items()), clips, left_out)


def _find(path, images):
    """[(video, text file, folder of its frames)]."""
    if path.is_file():
        files = [path]
    else:
        files = [*path.glob("*.txt")] or [*path.glob("*/gt/gt.txt")] or [*path.glob("gt/gt.txt")]
    if not files:
        raise UserError(f"{path}: holds no <video>.txt and no <video>/gt/gt.txt; check --input")
    videos = {}
    for file in files:
        challenge = file.parent.name == "gt"
        name = file.resolve().parent.parent.name if challenge else file.stem
        if challenge and images is None:
            videos[name] = file, file.parent.parent / "img1"
        elif images is None:
            raise UserError(f"{file}: its frames may lie anywhere; give the folder of <video>/ as --images")
        else:
            folder = pathlib.Path(images) / name
            videos[name] = file, folder / "img1" if (folder / "img1").is_dir() else folder
    return [(name, *videos[name]) for name in in_order(videos)]


def _parse(path, left_out):
    """{object id: (class, {frame: (line, RLE)})} of a text file, in order of the ids."""
    objects = {}
    for line, text in enumerate(read_text(path).splitlines(), start=1):
        if not text.strip():
            continue
        try:
            *numbers, counts = text.split()
            frame, object_id, number, height, width = map(int, numbers)
        except ValueError:
            raise UserError(
                f"{path}: line {line}: is not `frame id class height width rle`; correct the line"
            ) from None
        if number == IGNORE:
            left_out[f"regions to ignore (class {IGNORE})"] += 1
            continue
        known, lines = objects.setdefault(object_id, (number, {}))
        if known != number:
            raise UserError(f"{path}: line {line}: object {object_id} was of class {known}, now of {number}")
        if frame in lines:
            raise UserError(f"{path}: line {line}: object {object_id} appears twice in frame {frame}")
        lines[frame] = line, {"size": [height, width], "counts": counts}
    return dict(sorted(objects.items()))


def _tracks(path, objects, frames, height, width):
    """One track an object; `frames` are the numbers of the clip's frames."""
    tracks = []
    for number, lines in objects.values():
        masks = [None] * len(frames)
        for place, frame in enumerate(frames):
            if frame not in lines:
                continue
            line, rle = lines[frame]
            _, problem = compact_segmentation(rle, height, width)
            if problem:
                raise UserError(f"{path}: line {line}: {problem}; correct the line")
            masks[place] = rle if segmentation_area(rle, height, width) else None
        tracks.append(Track(number, masks))
    return tracks
