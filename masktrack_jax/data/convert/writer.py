"""The data structure that every converter returns, and its writer in the layout of YouTube-VIS."""

import dataclasses
import json
import pathlib
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
from tqdm import tqdm

from masktrack_jax.data.images import Size, check_image
from masktrack_jax.masks.rle import Rle, encode_mask, mask_area, mask_box
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import whole


@dataclasses.dataclass
class ObjectTrack:
    """One object of a clip: `masks` has one entry per frame, None where the object is not visible."""

    category_id: int
    masks: list[Rle | None]
    iscrowd: bool = False


@dataclasses.dataclass(frozen=True)
class Clip:
    """A video to write.

    `frames` are (name, path of the image) in order. `tracks(height, width)` reads the objects, given the size
    of the images.
    """

    name: str
    frames: tuple[tuple[str, pathlib.Path], ...]
    tracks: Callable[[int, int], list[ObjectTrack]]


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set to write: (id, name) of each category, the clips, and the numbers of records left out.

    `left_out` may grow while the clips' tracks are read.
    """

    categories: list[tuple[int, str]]
    clips: list[Clip]
    left_out: Counter[str] = dataclasses.field(default_factory=Counter)


def number_categories(names: Iterable[str]) -> tuple[list[tuple[int, str]], dict[str, int]]:
    """[(id, name)] of category names in alphabetical order, ids from 1, and {name: id}."""
    categories = list(enumerate(sorted(set(names)), start=1))
    return categories, {name: number for number, name in categories}


def encode_seen(mask: np.ndarray) -> Rle | None:
    """The RLE of a mask (height, width), or None if the mask is empty."""
    return encode_mask(mask) if mask.any() else None


def in_order(names: Iterable[str]) -> list[str]:
    """Names sorted by the numbers in them: frame2 before frame10."""
    return sorted(names, key=lambda name: [(len(x), x) if x.isdigit() else (0, x) for x in _parts(name)])


def _parts(name: str) -> list[str]:
    # Digits without leading zeros compare by length, then as text; the name itself breaks ties.
    return [part.lstrip("0") if part.isdigit() else part for part in re.split(r"(\d+)", str(name))] + [
        str(name)
    ]


def list_images(folder: str | pathlib.Path) -> list[pathlib.Path]:
    """The image files of a folder, in order. Raises UserError if there is no such folder."""
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of frames; check --input and --images")
    kinds = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
    names = [path.name for path in folder.iterdir() if path.suffix.lower() in kinds and path.name[0] != "."]
    return [folder / name for name in in_order(names)]


def write(
    source: Source, output: str | pathlib.Path, kind: str, *, link: bool = False, progress: bool = False
) -> pathlib.Path:
    """Write a `Source` to the new folder `output`: JPEGImages/<clip>/… and instances.json.

    The folder is written atomically, and the same source always gives the same bytes. With `link` frames are
    symbolic links to the original files. Returns the path of the annotations. Raises UserError.
    """
    output = pathlib.Path(output)
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(f"{output}: exists; remove it or choose another --output")
    if not source.clips:
        raise UserError("nothing to convert: no video with annotated frames; check --input and --videos")
    with whole(output) as partial:
        partial.mkdir()
        content = _write_clips(source, partial, link, progress)
        content["info"] = {"description": f"converted from {kind} by masktrack_jax.data.convert"}
        (partial / "instances.json").write_text(json.dumps(content), encoding="utf-8")
    return output / "instances.json"


def _write_clips(source: Source, root: pathlib.Path, link: bool, progress: bool) -> dict:
    """Write the frames into `root`; returns the content of the annotations file."""
    content: dict = {
        "info": None,
        "categories": [{"id": number, "name": name} for number, name in source.categories],
        "videos": [],
        "annotations": [],
    }
    for clip in tqdm(source.clips, "convert", unit="video", disable=None if progress else True):
        _check_name(clip.name)
        height, width = _clip_size(clip)
        tracks = clip.tracks(height, width)
        file_names = [f"{clip.name}/{name}" for name, _ in clip.frames]
        for file_name, (_, path) in zip(file_names, clip.frames):
            _write_frame(path, root / "JPEGImages" / file_name, link)
        shape = {"height": height, "width": width, "length": len(file_names)}
        video_id = len(content["videos"]) + 1
        content["videos"].append({"id": video_id, "name": clip.name, **shape, "file_names": file_names})
        for track in tracks:
            if not any(track.masks):
                source.left_out["objects without a pixel in any frame"] += 1
                continue
            number = len(content["annotations"]) + 1
            record = {"id": number, "video_id": video_id, "category_id": track.category_id}
            content["annotations"].append(
                record | {"iscrowd": int(track.iscrowd)} | shape | _lists(track.masks)
            )
    return content


def _check_name(name: str) -> None:
    parts = pathlib.PurePosixPath(name)
    if not name or parts.is_absolute() or ".." in parts.parts or "\\" in name:
        raise UserError(f"video {name!r}: cannot be the name of a folder; rename it")


def _clip_size(clip: Clip) -> Size:
    """Read all frames of a clip and return their (height, width). Raises UserError if they differ."""
    if not clip.frames:
        raise UserError(f"video {clip.name}: has no annotated frames; leave it out with --videos")
    sizes: dict[Size, pathlib.Path] = {}
    for path in dict.fromkeys(path for _, path in clip.frames):
        sizes.setdefault(check_image(path), path)
    if len(sizes) > 1:
        (size, path), (other, other_path) = list(sizes.items())[:2]
        raise UserError(
            f"{other_path}: is {other[0]}x{other[1]} (height x width) but {path} is {size[0]}x{size[1]}; "
            "the frames of a video must have one size"
        )
    return next(iter(sizes))


def _write_frame(source: pathlib.Path, target: pathlib.Path, link: bool) -> None:
    if target.exists() or target.is_symlink():
        raise UserError(f"{source}: another frame has the same video and name; rename one")
    target.parent.mkdir(parents=True, exist_ok=True)
    if link:
        target.symlink_to(source.resolve())
    else:
        shutil.copyfile(source, target)


def _lists(masks: list[Rle | None]) -> dict[str, list]:
    """The three lists of an annotation, one entry per frame."""
    return {
        "segmentations": masks,
        "bboxes": [None if rle is None else mask_box(rle) for rle in masks],
        "areas": [None if rle is None else mask_area(rle) for rle in masks],
    }
