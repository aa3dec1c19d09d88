"""DAVIS and YouTube-VOS: a palette PNG per frame, whose pixel values are object numbers.

    Annotations/[480p/]<video>/00000.png    JPEGImages/[480p/]<video>/00000.jpg

Frames without a PNG are unlabelled (YouTube-VOS labels every fifth). They are left out, because null in an
annotation would mean that the object is absent. Categories come from the option `categories`, from
`meta.json` (YouTube-VOS) or from `davis_semantics.json` beside the folders. Without any there is one
category, `object`.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from masktrack_jax.data.convert.label_images import VOID, read_label_image
from masktrack_jax.data.convert.source import (
    Clip,
    ObjectTrack,
    Report,
    Source,
    by_stem,
    encode_seen,
    list_files,
    list_folders,
    list_images,
)
from masktrack_jax.data.json_files import read_object
from masktrack_jax.masks.rle import Rle
from masktrack_jax.runtime.errors import UserError

PLACES = (".", "480p", "Full-Resolution", "1080p")
FEW_PIXELS = 4

CategoryOf = Callable[[str, int], str]  # (video, object number) -> category


def read(input_path: str | pathlib.Path, report: Report, categories: str | None = None) -> Source:
    """Read a folder that holds `Annotations` and `JPEGImages`; see --help for `categories`.

    Raises UserError.
    """
    root = pathlib.Path(input_path)
    annotations, images = _folders(root, report)
    found, category_of = _categories(root, categories)
    clips = []
    folders = list_folders(annotations)
    for folder in folders:
        masks = by_stem(list_files(folder, [".png"]))
        if not masks:
            report.left_out["videos without a palette PNG"] += 1
            continue
        frames = by_stem(list_images(images / folder.name))
        for stem, path in masks.items():
            if stem not in frames:
                raise UserError(f"{path}: has no frame {images / folder.name / stem}.jpg; add the frame")
        report.left_out["frames without a palette PNG, so not labelled"] += len(frames) - len(masks)
        pairs = [(path, frames[stem]) for stem, path in masks.items()]
        tracks = functools.partial(_tracks, pairs, category_of, report)
        clips.append(Clip(folder.name, tuple((frame.name, frame) for _, frame in pairs), tracks))
    unlabelled = {path.name for path in list_folders(images)} - {path.name for path in folders} - {*PLACES}
    report.left_out["videos without a folder of palette PNGs"] += len(unlabelled)
    return Source([(None, name) for name in found], clips)


def _folders(root: pathlib.Path, report: Report) -> tuple[pathlib.Path, pathlib.Path]:
    """The folders of the PNGs and of the frames, with a subfolder for each video."""
    pairs = []
    for below in PLACES:
        pair = root / "Annotations" / below, root / "JPEGImages" / below
        if all(folder.is_dir() for folder in pair) and any(
            path.suffix.lower() == ".png" for path in pair[0].glob("*/*")
        ):
            pairs.append(pair)
    if not pairs:
        raise UserError(
            f"{root}: holds no Annotations/<video>/*.png beside JPEGImages/<video> (or below 480p); "
            "check --input"
        )
    for annotations, _ in pairs[1:]:
        report.left_out[f"resolutions ({annotations.name}) beside {pairs[0][0].name}"] += 1
    return pairs[0]


def _categories(root: pathlib.Path, given: str | None) -> tuple[set[str], CategoryOf]:
    """The names of all categories, and the function that gives an object's."""
    if given is not None and not given.strip():
        raise UserError("--categories: is empty; give a name or a json file")
    if given is not None and not given.lower().endswith(".json"):
        return {given}, lambda video, number: given
    beside = [root / "meta.json", root / "davis_semantics.json"]
    for path in [pathlib.Path(given)] if given else [x for x in beside if x.is_file()]:
        return _category_map(path)
    return {"object"}, lambda video, number: "object"


def _category_map(path: pathlib.Path) -> tuple[set[str], CategoryOf]:
    """Read a json file of categories by object number, for each video or for all."""
    content: Any = read_object(path)
    videos = content.get("videos", content)
    try:
        if all(isinstance(name, str) for name in videos.values()):
            videos = {None: videos}
        named = {
            video: {
                number: name if isinstance(name, str) else name["category"]
                for number, name in objects.get("objects", objects).items()
            }
            for video, objects in videos.items()
        }
        found = {name for objects in named.values() for name in objects.values()}
        if not all(isinstance(name, str) and name.strip() for name in found):
            raise TypeError
    except (AttributeError, KeyError, TypeError):
        raise UserError(f"{path}: does not state the category of each video's objects; correct it") from None

    def category_of(video: str, number: int) -> str:
        objects = named.get(video, {}) if None not in named else named[None]
        if str(number) not in objects:
            raise UserError(f"{path}: names no category for object {number} of video {video}; add it there")
        return objects[str(number)]

    return found, category_of


def _tracks(
    pairs: list[tuple[pathlib.Path, pathlib.Path]],
    category_of: CategoryOf,
    report: Report,
    height: int,
    width: int,
) -> list[ObjectTrack]:
    """A track for each number in the PNGs of a video, in ascending order; `pairs` are PNGs and frames."""
    found: dict[int, list[Rle | None]] = {}
    largest: dict[int, int] = {}
    colours: dict[int, set[tuple[int, ...]]] = {}
    for place, (path, frame) in enumerate(pairs):
        indices, palette = read_label_image(path, frame, (height, width))
        numbers, areas = np.unique(indices[indices > 0], return_counts=True)
        for number, area in zip(numbers.tolist(), areas.tolist()):
            found.setdefault(number, [None] * len(pairs))[place] = encode_seen(indices == number, report)
            largest[number] = max(largest.get(number, 0), area)
            colours.setdefault(number, set()).update(palette[number : number + 1])
    if VOID in found and len(found) > 1:  # alone, it is the object: DAVIS 2016 marks its only object with 255
        del found[VOID]
        report.left_out["videos with void pixels (255), taken as background"] += 1
    if any(len(seen) > 1 for seen in colours.values()):
        report.notes["videos whose PNGs have different palettes; a number in them may be two objects"] += 1
    report.notes[f"objects of {FEW_PIXELS} pixels or fewer in every frame"] += sum(
        largest[number] <= FEW_PIXELS for number in found
    )
    return [
        ObjectTrack(category_of(pairs[0][0].parent.name, number), masks)
        for number, masks in sorted(found.items())
    ]
