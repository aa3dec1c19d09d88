"""Check an annotations file and its frames."""

import concurrent.futures
import itertools
import os
import pathlib
import re

from tqdm import tqdm

from masktrack_jax.data.json_files import read_json
from masktrack_jax.data.labels import LabelsFile, check_labels
from masktrack_jax.data.lint.changes import note_category_changes
from masktrack_jax.data.lint.objects import check_object
from masktrack_jax.data.values import Id, shown
from masktrack_jax.data.vis import NO_FRAMES, READ_OTHERWISE, default_frames_root, find_frame, read_objects
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.findings import Findings
from masktrack_jax.video.images import ImageFacts, inspect_image


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
    content = read_json(path)
    findings = Findings()
    labels = check_labels(content, path, lambda kind, *words: findings.error(kind, " ".join(words)))
    for line in labels.notes:
        findings.note(READ_OTHERWISE, line)
    _check_categories(labels["categories"], findings)
    _check_videos(labels["videos"], findings)
    if content.get("annotations") and "annotations" in labels:
        _check_annotations(labels, findings)
        _note_unused(labels, content["annotations"], findings)
    else:
        findings.note("no annotations", "as in the public files for validation and test")
    _check_frames(path, frames_root, labels["videos"], findings, progress)
    return findings


def _check_categories(records: list[dict], findings: Findings) -> None:
    """Report names that are used twice or nearly equal, and gaps in the ids."""
    names: dict[object, int] = {}
    stems: dict[str, str] = {}
    for record in records:
        name = record.get("name")
        if not isinstance(name, str) or not name:
            continue  # reported by `check_labels`
        if names.setdefault(name, record["id"]) != record["id"]:
            example = f"{shown(name)}: ids {names[name]} and {record['id']}"
            findings.error("category names used twice", example)
        elif (near := stems.setdefault(_stem(name), name)) != name:
            example = f"{shown(near)} and {shown(name)}; give one category one name"
            findings.note("category names that are nearly equal", example)
    ids = {record["id"] for record in records}
    if ids and (missing := max(ids) - sum(number > 0 for number in ids)) > 0:
        free = (number for number in itertools.count(1) if number not in ids)
        first = ", ".join(map(str, itertools.islice(free, min(missing, 5))))
        findings.note("gaps in the category ids", f"{missing} of 1 to {max(ids)} are missing, first {first}")


def _stem(name: str) -> str:
    """A name without case, separators and a number at its end: cow for Cow, cow-1 and cow_2."""
    return re.sub(r"[\W_]+", "", re.sub(r"[\W_]*\d+$", "", name.strip())).casefold() or name


def _check_videos(records: list[dict], findings: Findings) -> None:
    """Report videos without a list of frames, and frames that are used twice."""
    owners: dict[str, Id] = {}  # the first video with each frame
    for video in records:
        where = f"video {shown(video['id'])}"
        if not video.get("file_names"):
            findings.error("videos without frames", f"{where} {NO_FRAMES}")
        for name in video.get("file_names") or ():
            if name in owners:
                findings.error("frames used twice", f"{where}: {name}, also of video {shown(owners[name])}")
            owners.setdefault(name, video["id"])


def _check_annotations(labels: LabelsFile, findings: Findings) -> None:
    """Check the objects, and note what training leaves out of them."""
    videos = {video["id"]: video for video in labels["videos"]}
    for record, original, pixels, where in zip(
        labels["annotations"], labels.originals, labels.pixels, labels.names
    ):
        check_object(record, original, pixels, videos[record["video_id"]], where, findings)
    note_category_changes(labels, findings)
    read_objects(labels, findings)


def _note_unused(labels: LabelsFile, records: object, findings: Findings) -> None:
    """Note videos and categories without an object, not even one among the faulty `records` of the file."""
    raw = [record for record in records if isinstance(record, dict)] if isinstance(records, list) else []
    for key, table, kind in (
        ("video_id", "videos", "videos without labels"),
        ("category_id", "categories", "categories without objects"),
    ):
        used = {shown(record.get(key)) for record in [*raw, *labels.get("annotations", ())]}
        for record in labels[table]:
            if shown(record["id"]) not in used:
                name = f" {shown(record['name'])}" if table == "categories" and "name" in record else ""
                findings.note(kind, f"{key.removesuffix('_id')} {shown(record['id'])}{name}")


def _check_frames(
    path: pathlib.Path,
    frames_root: str | pathlib.Path | None,
    videos: list[dict],
    findings: Findings,
    progress: bool,
) -> None:
    """Report frames that are missing, truncated, or not of their video's size."""
    root = default_frames_root(path, videos) if frames_root is None else pathlib.Path(frames_root)
    if not root.is_dir():
        if frames_root is not None:
            raise UserError(f"{root}: no such folder; check --frames")
        findings.note("frames not checked", f"no folder {root}; give --frames")
        return
    tasks = [(video, find_frame(root, name)) for video in videos for name in video.get("file_names") or ()]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding releases the GIL
        sizes = pool.map(lambda task: _facts_or_problem(*task), tasks)
        bar = tqdm(sizes, "frames", len(tasks), unit="frame", disable=None if progress else True)
        for (video, frame), (facts, problem) in zip(tasks, bar):
            where, stated = f"video {shown(video['id'])}", (video["height"], video["width"])
            if facts is None:
                kind = "images that cannot be read" if os.path.exists(frame) else "missing images"
                findings.error(kind, f"{where}: {problem}")
                continue
            name = frame.relative_to(root)
            turned = f", EXIF orientation {facts.orientation}" if facts.orientation != 1 else ""
            if facts.size != stated:
                findings.error(
                    "images whose size is not their video's",
                    f"{where}: {name} is {facts.size[0]}x{facts.size[1]} (height x width){turned}, "
                    f"the video {stated[0]}x{stated[1]}",
                )
            elif turned:
                example = f"{where}: {name}{turned}; its masks must fit the turned picture"
                findings.note("images that EXIF data turn", example)


def _facts_or_problem(video: dict, path: pathlib.Path) -> tuple[ImageFacts | None, str]:
    """(facts, "") of a readable frame of a video, else (None, the problem)."""
    try:
        return inspect_image(path, (video["height"], video["width"])), ""
    except UserError as error:
        return None, str(error)
