"""DAVIS and YouTube-VOS: a palette PNG per frame, whose pixel values are object numbers.

    Annotations/[480p/]<video>/00000.png    JPEGImages/[480p/]<video>/00000.jpg

Frames without a PNG are unlabelled (YouTube-VOS labels every fifth). They are left out, because null in an
annotation would mean that the object is absent. Categories come from `meta.json` (YouTube-VOS) or
`davis_semantics.json` beside the folders. Without either file there is one category, `object`.
"""

import functools
import pathlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from masktrack_jax.data.convert.writer import (
    Clip,
    ObjectTrack,
    Source,
    encode_seen,
    in_order,
    list_images,
    number_categories,
)
from masktrack_jax.data.images import open_image
from masktrack_jax.data.json_files import read_object
from masktrack_jax.masks.rle import Rle
from masktrack_jax.runtime.errors import UserError

VOID = 255  # pixels that are neither an object nor background


Names = dict[str, dict[str, str]]  # video -> object's number as text -> category


def read(input_path: str | pathlib.Path) -> Source:
    """Read a folder that holds `Annotations` and `JPEGImages`. Raises UserError."""
    root = pathlib.Path(input_path)
    annotations, images = _folders(root)
    names = _category_names(root)
    found = {name for objects in (names or {}).values() for name in objects.values()}
    categories, ids = number_categories(found or {"object"})
    left_out: Counter[str] = Counter()
    clips = []
    for video in in_order(path.name for path in annotations.iterdir() if path.is_dir()):
        masks = {path.stem: path for path in list_images(annotations / video) if path.suffix == ".png"}
        frames = {path.stem: path for path in list_images(images / video)}
        for stem, path in masks.items():
            if stem not in frames:
                raise UserError(f"{path}: has no frame {images / video / stem}.jpg; add the frame")
        if not masks:
            left_out["videos without a palette PNG"] += 1
            continue
        left_out["frames without a palette PNG, so not labelled"] += len(frames) - len(masks)
        category_of = functools.partial(_category, names, ids)
        tracks = functools.partial(_tracks, [*masks.values()], category_of, left_out)
        clips.append(Clip(video, tuple((frames[stem].name, frames[stem]) for stem in masks), tracks))
    return Source(categories, clips, left_out)


def _folders(root: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """The folders of the PNGs and of the frames, with a subfolder for each video."""
    for below in (".", "480p", "Full-Resolution", "1080p"):
        pair = root / "Annotations" / below, root / "JPEGImages" / below
        if all(folder.is_dir() for folder in pair) and any(pair[0].glob("*/*.png")):
            return pair
    raise UserError(
        f"{root}: holds no Annotations/<video>/*.png beside JPEGImages/<video> (or below 480p); check --input"
    )


def _category_names(root: pathlib.Path) -> Names | None:
    """The categories of objects, or None if no file lists them."""
    videos: Any
    if (root / "meta.json").is_file():
        path, videos = root / "meta.json", read_object(root / "meta.json").get("videos")
    elif (root / "davis_semantics.json").is_file():
        path, videos = root / "davis_semantics.json", read_object(root / "davis_semantics.json")
    else:
        return None
    try:
        named = {
            video: {
                number: name if isinstance(name, str) else name["category"]
                for number, name in (objects.get("objects", objects)).items()
            }
            for video, objects in videos.items()
        }
    except (AttributeError, KeyError, TypeError):
        raise UserError(f"{path}: does not state the category of each video's objects; correct it") from None
    return named


def _tracks(
    paths: list[pathlib.Path],
    category_of: Callable[[pathlib.Path, int], int],
    left_out: Counter[str],
    height: int,
    width: int,
) -> list[ObjectTrack]:
    """A track for each number in the PNGs of a video, in ascending order."""
    found: dict[int, list[Rle | None]] = {}
    for frame, path in enumerate(paths):
        indices = _read_indices(path)
        if indices.shape != (height, width):
            raise UserError(
                f"{path}: is {indices.shape[0]}x{indices.shape[1]} (height x width), its frame "
                f"{height}x{width}; both must have one size"
            )
        for number in np.unique(indices[indices > 0]).tolist():
            found.setdefault(number, [None] * len(paths))[frame] = encode_seen(indices == number)
    if VOID in found and len(found) > 1:  # alone, it is the object: DAVIS 2016 marks its only object with 255
        del found[VOID]
        left_out["videos with void pixels (255), taken as background"] += 1
    return [
        ObjectTrack(category_of(paths[0].parent, number), masks) for number, masks in sorted(found.items())
    ]


def _category(names: Names | None, ids: dict[str, int], folder: pathlib.Path, number: int) -> int:
    """The category id of an object of the video with PNGs in `folder`."""
    if names is None:
        return ids["object"]
    name = names.get(folder.name, {}).get(str(number))
    if name is None:
        raise UserError(
            f"{folder}: object {number} has no category in the JSON file beside Annotations; add it there"
        )
    return ids[name]


def _read_indices(path: pathlib.Path) -> np.ndarray:
    """The pixel values (H, W) uint8 of a palette or grey PNG."""
    with open_image(path) as image:
        if image.mode not in ("P", "L", "1"):
            raise UserError(f"{path}: is {image.mode}, not a palette PNG; save it with 8-bit indices")
        indices = np.array(image)
    return indices.astype(np.uint8)
