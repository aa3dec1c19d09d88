"""The one check of an annotations file, for every command that reads one.

Training, evaluation, validation and the linter get the same content from `check_labels`, or the same error.
"""

import functools
from collections.abc import Collection
from pathlib import Path
from typing import Any

from masktrack_jax.data.cocovid import from_cocovid, instance_name, is_cocovid
from masktrack_jax.data.records import check_annotation, check_categories, check_video
from masktrack_jax.data.values import Id, Report, kind_of, record_error, record_name, unique_ids
from masktrack_jax.masks.segmentations import BrokenSegmentation, read_each
from masktrack_jax.runtime.errors import UserError

ABSENT, BROKEN = -1, -2  # in `LabelsFile.pixels`, where a frame has no mask


class LabelsFile(dict[str, Any]):
    """The checked content of an annotations file in the YouTube-VIS format.

    It has the lists `categories` and `videos`, and `annotations` if the file has labels. In their records

    - the ids of videos are unique, integers or texts; those of categories are unique integers;
    - `height`, `width` and `length` of a video are positive integers, `file_names` has `length` names below
      the frames folder, with "/" between folders, or is absent;
    - `iscrowd` is 0 or 1, or absent;
    - `segmentations` has a compressed RLE of the video's size for each frame, None where there is no mask;
    - `bboxes` and `areas` have four numbers and one number for each frame, or None, or are None or absent.

    Other keys are as in the file.

    Attributes:
      pixels: for each annotation, the area of its mask in every frame, `ABSENT` where it has none.
      originals: for each annotation, its record as the file has it.
      notes: lines on what the file holds and the format cannot.
      names: for each annotation, its name in messages, by default its record's.
    """

    def __init__(
        self,
        content: dict[str, Any],
        pixels: list[list[int]],
        originals: list[dict],
        notes: list[str],
        names: list[str] | None = None,
    ) -> None:
        super().__init__(content)
        self.pixels, self.originals, self.notes = pixels, originals, notes
        self.names = names or _names(originals)

    def only(self, video_ids: Collection[Id], category_ids: Collection[int]) -> "LabelsFile":
        """The content restricted to these videos and categories."""
        kept = [
            place
            for place, record in enumerate(self["annotations"])
            if record["video_id"] in video_ids and record["category_id"] in category_ids
        ]
        content = dict(self) | {
            "videos": [video for video in self["videos"] if video["id"] in video_ids],
            "categories": [record for record in self["categories"] if record["id"] in category_ids],
            "annotations": [self["annotations"][place] for place in kept],
        }
        pixels = [self.pixels[place] for place in kept]
        originals = [self.originals[place] for place in kept]
        return LabelsFile(content, pixels, originals, self.notes, [self.names[place] for place in kept])


def check_labels(content: object, path: str | Path, report: Report | None = None) -> LabelsFile:
    """Check the content of an annotations file in the YouTube-VIS format or in mmtracking's.

    `path` names the file in messages. Raises a UserError for the first fault, or calls `report` for every
    fault and leaves the faulty records out; a mask that cannot be read then has `BROKEN` pixels. Returns
    checked content as it is.
    """
    if isinstance(content, LabelsFile):
        return content
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: is not an object with `videos` and `categories` but {kind_of(content)}; "
            "give the annotations file"
        )
    report = report or functools.partial(_stop, path)
    notes: list[str] = []
    converted = is_cocovid(content)
    if converted:
        content = from_cocovid(content, report, notes)
    categories = check_categories(_records(content, "categories", report), report)
    records = _records(content, "videos", report)
    ids = unique_ids(records, "video", report, text=True)
    videos = {
        video_id: video
        for record, video_id in zip(records, ids)
        if video_id is not None and (video := check_video(record, video_id, report))
    }
    checked = content | {"categories": list(categories.values()), "videos": list(videos.values())}
    annotations: list[dict[str, Any]] = []
    originals, names = [], []
    if content.get("annotations") is not None:
        known = {video_id for video_id in ids if video_id is not None}
        records = _records(content, "annotations", report)
        for record, name in zip(records, map(instance_name, records) if converted else _names(records)):
            found = check_annotation(record, name, known, videos, categories, report)
            if found is not None:
                annotations.append(found)
                originals.append(record)
                names.append(name)
        checked["annotations"] = annotations
        shared = len(annotations) - len({repr(record.get("id")) for record in annotations})
        if shared:
            notes.append(f"{shared} annotations have the `id` of another one, or none; ids are not used")
    pixels = _read_masks(annotations, names, videos, report)
    return LabelsFile(checked, pixels, originals, notes, names)


def _names(records: list) -> list[str]:
    """The names of annotations in messages."""
    return [record_name(record, "annotation", place) for place, record in enumerate(records, start=1)]


def _stop(path: object, kind: str, where: str, problem: str) -> None:
    del kind
    raise record_error(path, where, problem)


def _records(content: dict, key: str, report: Report) -> list:
    """The list `key` of the file."""
    records = content.get(key)
    if isinstance(records, list):
        return records
    found = f" but {kind_of(records)}" if key in content else ""
    if key == "videos" and "images" in content:
        found = " but `images`, as a file on single images has, which data.convert --from coco reads"
    report("missing lists", "the file", f"has no list of objects `{key}`{found}")
    return []


def _read_masks(
    annotations: list[dict], names: list[str], videos: dict[Id, dict], report: Report
) -> list[list[int]]:
    """Replace the masks of annotations by compressed RLEs; returns their areas in every frame."""
    of_video: dict[Id, list[int]] = {}
    for place, record in enumerate(annotations):
        of_video.setdefault(record["video_id"], []).append(place)
    pixels = [[ABSENT] * len(record["segmentations"]) for record in annotations]
    for video_id, places in of_video.items():
        video = videos[video_id]
        there = [
            (place, frame)
            for place in places
            for frame, mask in enumerate(annotations[place]["segmentations"])
            if mask is not None
        ]
        segmentations = [annotations[place]["segmentations"][frame] for place, frame in there]
        for place in places:
            annotations[place]["segmentations"] = [None] * video["length"]
        found = read_each(segmentations, (video["height"], video["width"]))
        for (place, frame), mask, one in zip(there, segmentations, found):
            if isinstance(one, BrokenSegmentation):
                other_size = isinstance(mask, dict) and mask.get("size") != [video["height"], video["width"]]
                kind = "masks whose size is not their video's" if other_size else "masks that cannot be read"
                report(kind, f"{names[place]}, frame {frame},", f"is not a mask ({one})")
                pixels[place][frame] = BROKEN
            else:
                annotations[place]["segmentations"][frame], pixels[place][frame] = one
    return pixels
