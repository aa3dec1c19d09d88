"""Write a converted data set in the layout of YouTube-VIS."""

import json
import os
import pathlib
import re
import shutil
from collections import Counter
from typing import NamedTuple

from tqdm import tqdm

from masktrack_jax.data.convert.source import (
    Clip,
    Report,
    Source,
    turned,
)
from masktrack_jax.masks.rle import Rle, mask_area, mask_box
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import whole
from masktrack_jax.video.images import Size, inspect_image


class Counts(NamedTuple):
    """What was written; `objects` are the masks of all tracks in all frames."""

    videos: int
    frames: int
    tracks: int
    objects: int
    categories: int


def write(
    source: Source,
    output: str | os.PathLike[str],
    kind: str,
    report: Report,
    *,
    link: bool = False,
    progress: bool = False,
) -> Counts:
    """Write a `Source` to the new folder `output`: JPEGImages/<clip>/… and instances.json.

    The folder is written atomically, and the same source always gives the same bytes. With `link` frames are
    symbolic links to the original files. Raises UserError, also if no object is left.
    """
    output = pathlib.Path(output)
    check_output(output)
    if not source.clips:
        raise UserError(
            f"nothing to convert: no video with annotated frames{_reasons(report)}; "
            "check --input and --videos"
        )
    with whole(output) as partial:
        partial.mkdir()
        content = _write_clips(source, partial, report, link, progress)
        if not content["annotations"]:
            raise UserError(f"nothing to convert: no object in any video{_reasons(report)}; check the labels")
        content["info"] = {"description": f"converted from {kind} by masktrack_jax.data.convert"}
        (partial / "instances.json").write_text(json.dumps(content), encoding="utf-8")
    return Counts(
        len(content["videos"]),
        sum(video["length"] for video in content["videos"]),
        len(content["annotations"]),
        sum(mask is not None for record in content["annotations"] for mask in record["segmentations"]),
        len(content["categories"]),
    )


def check_output(output: pathlib.Path) -> None:
    """Raise UserError if something exists at `output` that is not an empty folder."""
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(f"{output}: exists; remove it or choose another --output")


def _reasons(report: Report) -> str:
    reasons = ", ".join(f"{count} {kind}" for kind, count in report.left_out.items() if count)
    return f" (left out: {reasons})" if reasons else ""


def _write_clips(source: Source, root: pathlib.Path, report: Report, link: bool, progress: bool) -> dict:
    """Write the frames into `root`; returns the content of the annotations file."""
    ids = {name: number for number, name in source.categories}
    content: dict = {
        "info": None,
        "categories": [{"id": number, "name": name} for number, name in source.categories],
        "videos": [],
        "annotations": [],
    }
    for clip in tqdm(source.clips, "convert", unit="video", disable=None if progress else True):
        if twice := next((x for x, count in Counter(clip.frames).items() if count > 1), None):
            raise UserError(
                f"{twice[1]}: is named twice in the labels of video {clip.name}; remove one of its records"
            )
        for name in (clip.name, *(f"{clip.name}/{frame}" for frame, _ in clip.frames)):
            _check_name(name)
        height, width = _clip_size(clip, report)
        tracks = clip.tracks(height, width)
        file_names = [f"{clip.name}/{name}" for name, _ in clip.frames]
        for file_name, (_, path) in zip(file_names, clip.frames):
            _write_frame(path, root / "JPEGImages" / file_name, report, link)
        shape = {"height": height, "width": width, "length": len(file_names)}
        video_id = len(content["videos"]) + 1
        content["videos"].append({"id": video_id, "name": clip.name, **shape, "file_names": file_names})
        for track in tracks:
            if not any(track.masks):
                report.left_out["objects without a pixel in any frame"] += 1
                continue
            number = len(content["annotations"]) + 1
            record = {"id": number, "video_id": video_id, "category_id": ids[track.category]}
            content["annotations"].append(
                record | {"iscrowd": int(track.iscrowd)} | shape | _lists(track.masks)
            )
    return content


def _check_name(name: str) -> None:
    """Raise UserError unless every system can have a file of this name below the data set's folder."""
    parts = pathlib.PurePosixPath(name)
    strange = re.search(r"[\0-\x1f\\\ud800-\udfff]|^[A-Za-z]:", name)
    if not parts.parts or parts.is_absolute() or ".." in parts.parts or strange:
        raise UserError(f"{name!r}: cannot be the name of a video or frame; rename it")


def _clip_size(clip: Clip, report: Report) -> Size:
    """Read all frames of a clip and return their (height, width). Raises UserError if they differ."""
    if not clip.frames:
        raise UserError(f"video {clip.name}: has no annotated frames; leave it out with --videos")
    sizes: dict[Size, pathlib.Path] = {}
    for path in dict.fromkeys(path for _, path in clip.frames):
        size, orientation = inspect_image(path)
        sizes.setdefault(size, path)
        # The others change the size, so the size of the labels shows whether they are of the image as shown.
        if orientation in (2, 3, 4) or (orientation > 4 and size[0] == size[1]):
            report.notes["images with an EXIF orientation, read as they are shown"] += 1
    if len(sizes) > 1:
        (size, path), (other, other_path) = list(sizes.items())[:2]
        cure = turned(size, other, other_path) or turned(other, size, path)
        raise UserError(
            f"{other_path}: is {other[0]}x{other[1]} (height x width) but {path} is {size[0]}x{size[1]}; "
            f"{cure or 'the frames of a video must have one size'}"
        )
    return next(iter(sizes))


def _write_frame(source: pathlib.Path, target: pathlib.Path, report: Report, link: bool) -> None:
    if target.exists() or target.is_symlink():
        raise UserError(f"{source}: another frame has the same video and name; rename one")
    if source.is_symlink():
        report.notes["frames that are links, read where they lead"] += 1
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
