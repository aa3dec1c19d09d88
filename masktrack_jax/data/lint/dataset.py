"""Check an annotations file in the YouTube-VIS format and its frames."""

import concurrent.futures
import itertools
import os
import pathlib
from typing import TypeGuard

from tqdm import tqdm

from masktrack_jax.data.images import check_image
from masktrack_jax.data.json_files import read_labels
from masktrack_jax.data.lint.objects import check_object
from masktrack_jax.data.vis import default_frames_root
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.findings import Findings

LARGEST = 65535  # pixels, the longest side of a JPEG


def lint(
    annotations_path: str | pathlib.Path,
    frames_root: str | pathlib.Path | None = None,
    progress: bool = False,
) -> Findings:
    """Check an annotations file, and its frames if their folder exists.

    `frames_root` is as in `data.vis.read_vis`. Raises UserError if the file is not a JSON object, or if
    `frames_root` is given but does not exist.
    """
    path = pathlib.Path(annotations_path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the annotations file in it")
    content = read_labels(path)
    findings = Findings()
    categories = _check_categories(_records(content, "categories", findings), findings)
    videos = _by_id(_records(content, "videos", findings), "video", findings)
    sound = _check_videos(videos, findings)
    if content.get("annotations"):
        annotations = _records(content, "annotations", findings)
        _check_annotations(annotations, videos, sound, categories, findings, progress)
    else:
        findings.note("no annotations", "as in the public files for validation and test")
    _check_frames(path, frames_root, videos, findings, progress)
    return findings


def _records(content: dict, key: str, findings: Findings) -> list[dict]:
    """The objects in the list `key`; anything else in it is reported."""
    records = content.get(key)
    if not isinstance(records, list):
        findings.error("missing lists", f"the file has no list `{key}`")
        return []
    for place, record in enumerate(records):
        if not isinstance(record, dict):
            findings.error("records that are not objects", f"{key} number {place + 1}: {record!r:.60}")
    return [record for record in records if isinstance(record, dict)]


def _by_id(records: list[dict], kind: str, findings: Findings) -> dict[int, dict]:
    """Map records by id. Missing and duplicate ids are reported; the first record with an id is used."""
    table: dict[int, dict] = {}
    for place, record in enumerate(records):
        record_id = record.get("id")
        if not _is_integer(record_id):
            findings.error("missing ids", f"{kind} number {place + 1} has no integer `id`")
        elif record_id in table:
            findings.error("duplicate ids", f"{kind} {record_id} appears again as number {place + 1}")
        else:
            table[record_id] = record
    return table


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_categories(records: list[dict], findings: Findings) -> dict[int, dict]:
    """Check the categories; returns them by id."""
    categories = _by_id(records, "category", findings)
    names: dict[str, int] = {}
    for category_id, record in categories.items():
        name = record.get("name")
        if not isinstance(name, str) or not name:
            findings.error("categories without a name", f"category {category_id}")
        elif names.setdefault(name, category_id) != category_id:
            findings.error("category names used twice", f"{name!r}: ids {names[name]} and {category_id}")
    if categories:
        last = max(categories)
        missing = last - sum(category_id > 0 for category_id in categories)
        if missing > 0:
            free = (number for number in itertools.count(1) if number not in categories)
            first = ", ".join(map(str, itertools.islice(free, min(missing, 5))))
            findings.note("gaps in the category ids", f"{missing} of 1 to {last} are missing, first {first}")
    return categories


def _frame_names(video: dict) -> list[str]:
    """The names of a video's frames; empty if the list is invalid."""
    names = video.get("file_names")
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        return []
    return names


def _check_videos(videos: dict[int, dict], findings: Findings) -> dict[int, dict]:
    """Check the videos, by id; returns those with a valid size and list of frames."""
    sound: dict[int, dict] = {}
    owners: dict[str, int] = {}  # the first video with each frame
    for video_id, record in videos.items():
        where, good = f"video {video_id}", True
        for key in ("height", "width"):
            if not _is_integer(record.get(key)) or not 1 <= record[key] <= LARGEST:
                findings.error("videos without a size", f"{where}: {key} {record.get(key)!r:.40}")
                good = False
        names = _frame_names(record)
        if not names:
            findings.error("videos without frames", f"{where}: no list of names in `file_names`")
            continue
        if record.get("length", len(names)) != len(names):
            findings.error(
                "wrong lengths", f"{where}: `length` {record['length']!r:.40} but {len(names)} `file_names`"
            )
        for name in names:
            if name in owners:
                findings.error("frames used twice", f"{where}: {name}, also of video {owners[name]}")
            owners.setdefault(name, video_id)
        if good:
            sound[video_id] = record
    return sound


def _check_annotations(
    records: list[dict],
    videos: dict[int, dict],
    sound: dict[int, dict],
    categories: dict[int, dict],
    findings: Findings,
    progress: bool,
) -> None:
    """Check the objects; masks are checked only in videos of `sound`."""
    _by_id(records, "annotation", findings)
    labelled, used = set(), set()
    for place, record in enumerate(
        tqdm(records, "objects", unit="object", disable=None if progress else True)
    ):
        where = f"annotation {record.get('id', f'number {place + 1}')}"
        found = {}
        for key, table in (("video_id", videos), ("category_id", categories)):
            value = record.get(key)
            found[key] = table.get(value) if _is_integer(value) else None
            if key not in record:
                findings.error("missing keys", f"{where} has no `{key}`")
            elif found[key] is None:
                findings.error("unknown ids", f"{where}: {key} {value!r:.40} is not in the file")
        labelled.add(repr(record.get("video_id")))
        used.add(repr(record.get("category_id")))
        video = found["video_id"]
        check_object(record, video if video and video["id"] in sound else None, where, findings)
    for video_id in videos:
        if repr(video_id) not in labelled:
            findings.note("videos without labels", f"video {video_id}")
    for category_id, category in categories.items():
        if repr(category_id) not in used:
            findings.note("categories without objects", f"category {category_id} {category.get('name')!r}")


def _check_frames(
    path: pathlib.Path,
    frames_root: str | pathlib.Path | None,
    videos: dict[int, dict],
    findings: Findings,
    progress: bool,
) -> None:
    """Report frames that are missing, truncated, or not of their video's size."""
    root = default_frames_root(path) if frames_root is None else pathlib.Path(frames_root)
    if not root.is_dir():
        if frames_root is not None:
            raise UserError(f"{root}: no such folder; check --frames")
        findings.note("frames not checked", f"no folder {root}; give --frames")
        return
    tasks = [(video_id, name) for video_id, video in videos.items() for name in _frame_names(video)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding releases the GIL
        sizes = pool.map(lambda task: _size_or_problem(root / task[1]), tasks)
        bar = tqdm(sizes, "frames", len(tasks), unit="frame", disable=None if progress else True)
        for (video_id, name), (size, problem) in zip(tasks, bar):
            stated = tuple(videos[video_id].get(key) for key in ("height", "width"))
            if size is None:
                missing = not (root / name).exists()
                kind = "missing images" if missing else "images that cannot be read"
                findings.error(kind, f"video {video_id}: {problem}")
            elif size != stated:
                findings.error(
                    "images whose size is not their video's",
                    f"video {video_id}: {name} is {size[0]}x{size[1]} (height x width), "
                    f"the video {stated[0]}x{stated[1]}",
                )


def _size_or_problem(path: pathlib.Path) -> tuple[tuple[int, int] | None, str]:
    """(size, "") of a readable image, else (None, the problem)."""
    try:
        return check_image(path), ""
    except UserError as error:
        return None, str(error)
