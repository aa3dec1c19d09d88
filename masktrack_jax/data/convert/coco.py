"""COCO: every image becomes a video of one frame, or of the same frame repeated.

Category ids and `iscrowd` are kept. Annotations without a segmentation are left out.
"""

import functools
import pathlib
from collections import Counter
from collections.abc import Sequence

from masktrack_jax.data.convert.writer import Clip, ObjectTrack, Source, encode_seen
from masktrack_jax.data.json_files import read_object
from masktrack_jax.masks.segmentations import decode_segmentation
from masktrack_jax.runtime.errors import UserError


def read(input_path: str | pathlib.Path, images: str | pathlib.Path, frames: int = 1) -> Source:
    """Read an instances file with images in the folder `images`; a clip repeats its image `frames` times.

    Raises UserError.
    """
    path = pathlib.Path(input_path)
    content = read_object(path)
    categories = [(x["id"], x["name"]) for x in _records(path, content, "categories", ("id", "name"))]
    known = {category_id for category_id, _ in categories}
    left_out: Counter[str] = Counter()
    records = _records(path, content, "images", ("id", "file_name", "height", "width"))
    by_image: dict[int, list[dict]] = {record["id"]: [] for record in records}
    for key, unique in (("images", by_image), ("categories", known)):
        if len(unique) != len(content[key]):
            raise UserError(f"{path}: an id is used twice in `{key}`; give each its own")
    for place, record in enumerate(
        _records(path, content, "annotations", ("image_id", "category_id"), required=False)
    ):
        if record["image_id"] not in by_image or record["category_id"] not in known:
            where = f"annotation {record.get('id', f'number {place + 1}')}"
            raise UserError(f"{path}: {where} has an unknown image or category; correct the file")
        if record.get("segmentation"):
            by_image[record["image_id"]].append(record)
        else:
            left_out["annotations without a segmentation"] += 1
    stems = Counter(_stem(record["file_name"]) for record in records)
    clips = []
    for record in records:
        name, image = _stem(record["file_name"]), pathlib.Path(images) / record["file_name"]
        if stems[name] > 1:  # a.jpg and a.png
            name = record["file_name"]
        names = [f"{frame:05d}{image.suffix}" for frame in range(frames)]
        tracks = functools.partial(_tracks, path, record, by_image[record["id"]], frames)
        clips.append(Clip(name, tuple((frame, image) for frame in names), tracks))
    return Source(categories, clips, left_out)


def _stem(file_name: str) -> str:
    return str(pathlib.PurePosixPath(file_name).with_suffix(""))


def _records(
    path: pathlib.Path, content: dict, key: str, needed: Sequence[str], required: bool = True
) -> list[dict]:
    """The list `key`, whose records must have the `needed` keys."""
    records = content.get(key, None if required else [])
    if not isinstance(records, list):
        raise UserError(f"{path}: has no list `{key}`; give a COCO instances file")
    for place, record in enumerate(records):
        for name in needed:
            value = record.get(name) if isinstance(record, dict) else None
            if name in ("name", "file_name"):
                good = isinstance(value, str) and pathlib.PurePosixPath(value).name != ""
            else:
                good = isinstance(value, int)
            if not good:
                raise UserError(f"{path}: {key} number {place + 1} has no `{name}`; correct the file")
    return records


def _tracks(
    path: pathlib.Path, image: dict, records: list[dict], frames: int, height: int, width: int
) -> list[ObjectTrack]:
    """One track per annotation, with the same mask in every frame."""
    if (image["height"], image["width"]) != (height, width):
        raise UserError(
            f"{path}: image {image['id']} is stated as {image['height']}x{image['width']} (height x width) "
            f"but {image['file_name']} is {height}x{width}; correct one of them"
        )
    tracks = []
    for record in records:
        try:
            mask = encode_seen(decode_segmentation(record["segmentation"], height, width))
        except UserError as error:
            raise UserError(f"{path}: annotation {record.get('id')}: {error}") from None
        tracks.append(ObjectTrack(record["category_id"], [mask] * frames, bool(record.get("iscrowd", 0))))
    return tracks
