"""What every converter hands over, and the one place where it is written in the layout of YouTube-VIS."""

import dataclasses
import json
import pathlib
import re
import shutil
from collections import Counter
from collections.abc import Callable

import numpy as np
from tqdm import tqdm

from masktrack_jax.data.images import check_image
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import whole


@dataclasses.dataclass
class Track:
    """One object of a clip: `masks` holds a compressed RLE a frame (`encode`), None where it is not seen."""

    category_id: int
    masks: list
    iscrowd: bool = False


@dataclasses.dataclass(frozen=True)
class Clip:
    """One video to be.

    `frames` are (name, path of the image) in order; `tracks(height, width)` reads its objects, given the size
    that its images turned out to have.
    """

    name: str
    frames: tuple
    tracks: Callable


@dataclasses.dataclass(frozen=True)
class Source:
    """What a converter found: (id, name) of each category, the clips, and what it leaves out, by kind.

    `left_out` may grow while the clips' tracks are read.
    """

    categories: list
    clips: list
    left_out: Counter = dataclasses.field(default_factory=Counter)


def number_categories(names):
    """[(id, name)] of category names by the alphabet, ids from 1, and {name: id}."""
    categories = list(enumerate(sorted(set(names)), start=1))
    return categories, {name: number for number, name in categories}


def encode(mask):
    """The compressed RLE of a (H, W) mask as a file holds it; None for a mask without a pixel."""
    from pycocotools import mask as coco_mask

    if not mask.any():
        return None
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}


def in_order(names):
    """Names sorted as people count: frame2 before frame10."""
    return sorted(names, key=lambda name: [(len(x), x) if x.isdigit() else (0, x) for x in _parts(name)])


def _parts(name):
    # Digits stripped of leading zeros compare by length, then text; the name itself decides between equals.
    return [part.lstrip("0") if part.isdigit() else part for part in re.split(r"(\d+)", str(name))] + [
        str(name)
    ]


def list_images(folder):
    """The image files of a folder, in order. Raises UserError when there is no such folder."""
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of frames; check --input and --images")
    kinds = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
    names = [path.name for path in folder.iterdir() if path.suffix.lower() in kinds and path.name[0] != "."]
    return [folder / name for name in in_order(names)]


def read_text(path):
    """The text of a file. Raises UserError."""
    try:
        return pathlib.Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check --input") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not text in UTF-8; check --input") from None


def read_json(path):
    """The JSON object of a file. Raises UserError."""
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not valid JSON ({error}); correct the file") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: is not a JSON object; check --input")
    return content


def write(source, output, kind, *, link=False, progress=False):
    """Write a `Source` to the new folder `output`: JPEGImages/<clip>/… and instances.json.

    The folder appears complete or not at all, and the same source gives the same bytes. With `link` the
    frames are symbolic links to where they lie. Returns the path of the annotations. Raises UserError.
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


def _write_clips(source, root, link, progress):
    """Frames into `root`; returns the content of the annotations file."""
    content = {
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
            _place(path, root / "JPEGImages" / file_name, link)
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


def _check_name(name):
    parts = pathlib.PurePosixPath(name)
    if not name or parts.is_absolute() or ".." in parts.parts or "\\" in name:
        raise UserError(f"video {name!r}: is no name of a folder; rename it")


def _clip_size(clip):
    """(height, width) of a clip's frames, each of them read. Raises UserError when they differ."""
    if not clip.frames:
        raise UserError(f"video {clip.name}: has no annotated frames; leave it out with --videos")
    sizes = {}
    for path in dict.fromkeys(path for _, path in clip.frames):
        sizes.setdefault(check_image(path), path)
    if len(sizes) > 1:
        (size, path), (other, other_path) = list(sizes.items())[:2]
        raise UserError(
            f"{other_path}: is {other[0]}x{other[1]} (height x width) but {path} is {size[0]}x{size[1]}; "
            "the frames of a video must have one size"
        )
    return next(iter(sizes))


def _place(source, target, link):
    if target.exists() or target.is_symlink():
        raise UserError(f"{source}: another frame has the same video and name; rename one")
    target.parent.mkdir(parents=True, exist_ok=True)
    if link:
        target.symlink_to(pathlib.Path(source).resolve())
    else:
        shutil.copyfile(source, target)


def _lists(masks):
    """The three lists of an annotation, one entry a frame."""
    from pycocotools import mask as coco_mask

    return {
        "segmentations": masks,
        "bboxes": [None if rle is None else coco_mask.toBbox(rle).tolist() for rle in masks],
        "areas": [None if rle is None else int(coco_mask.area(rle)) for rle in masks],
    }
