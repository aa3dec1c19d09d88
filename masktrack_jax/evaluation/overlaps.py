"""Overlap of every labelled track with every predicted track, the common input of all evaluators.

This module checks the JSON and reads the masks once. Tracks are compared within one video and one category.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from masktrack_jax.masks.overlap import common_pixels, overlap_ratios
from masktrack_jax.masks.rle import Rle
from masktrack_jax.masks.segmentations import BrokenMask, read_tracks
from masktrack_jax.runtime.errors import UserError

NO_LABELS = (
    "has no annotations; the labels of public validation and test sets stay on their server: upload "
    "results.json there, or score on videos with labels"
)
Id = int | str  # the id of a video or a category, as in the file


@dataclass(frozen=True)
class Tracks:
    """The N tracks of one category in one video, labelled or predicted, in the order of the file; T frames.

    Attributes:
      scores: (N,) float, 1 for ground truth.
      crowd: (N,) bool, False for predictions.
      mean_area: (N,) float, mean over the frames with a non-zero area, 0 without such a frame. For ground
        truth it is the mean of the areas stated in the file, as in the official evaluator.
      lengths: (N,) int, number of entries of each track's `segmentations`; T is the largest.
      areas: (N, T) int64, area of each mask in pixels, -1 where there is no mask.
    """

    scores: np.ndarray
    crowd: np.ndarray
    mean_area: np.ndarray
    lengths: np.ndarray
    areas: np.ndarray


@dataclass(frozen=True)
class ClassOverlap:
    """D predicted and G labelled tracks of one category in one video, and their intersection.

    `intersection` is (D, G, T) int64 with T the smaller number of frames: common pixels in each
    frame, 0 where either track has no mask, -1 where the two masks differ in size.
    """

    video_id: Id
    category_id: Id
    num_frames: int
    predicted: Tracks
    labelled: Tracks
    intersection: np.ndarray


@dataclass(frozen=True)
class Overlaps:
    """Overlaps of all videos.

    Attributes:
      categories: id → name, sorted by id.
      pairs: sorted by video id, then category id; only pairs with a label or a prediction.
      notes: lines to show to the user.
    """

    categories: dict[Id, str]
    pairs: list[ClassOverlap]
    notes: list[str] = field(default_factory=list)


class _Located(NamedTuple):
    """A record of a file, and its file and place for error messages."""

    where: str
    record: dict[str, Any]


class _TracksAndMasks(NamedTuple):
    """Tracks, and for each of them the RLE of every frame, None where there is no mask."""

    tracks: Tracks
    rles: Sequence[Sequence[Rle | None]]


def compute_overlaps(
    ground_truth: dict[str, Any],
    results: list[dict[str, Any]],
    names: tuple[str, str] = ("ground truth", "results"),
    progress: bool = False,
) -> Overlaps:
    """Check ground truth and results and intersect their tracks.

    Args:
      ground_truth: dict in YouTube-VIS form (`videos`, `categories`, `annotations`).
      results: list of `{video_id, category_id, score, segmentations}`; other keys are ignored.
      names: names of the two in messages, usually their paths.
      progress: show a progress bar on a terminal.
    Raises:
      UserError: duplicate video or category ids, a label or prediction of an unknown video, a label
        of an unknown category, missing keys, a score that is not a number, a broken mask.

    Annotation ids are not used, so 0 and duplicates have no effect. The official code treats a match with
    annotation 0 as no match, and scores the last of two equal ids twice. Predictions of an unknown category
    are left out, with a note; the official code leaves them out silently.
    """
    gt_name, result_name = names
    if not isinstance(ground_truth, dict):
        raise UserError(f"{gt_name}: expected a json object with videos, categories and annotations")
    if not isinstance(results, list):
        raise UserError(f"{result_name}: expected a json list of tracks, got {type(results).__name__}")
    videos = _index(ground_truth, "videos", gt_name)
    categories = _index(ground_truth, "categories", gt_name)
    if ground_truth.get("annotations") is None:
        raise UserError(f"{gt_name}: {NO_LABELS}")
    notes: list[str] = []
    labels = _group(ground_truth["annotations"], videos, categories, f"{gt_name}: annotations", None)
    predictions = _group(results, videos, categories, result_name, notes)
    category_names = {key: str(categories[key].get("name", key)) for key in _sorted(categories, gt_name)}
    pairs, resized, nothing = [], 0, _TracksAndMasks(_tabulate([], [], is_label=False), [])
    video_ids = _sorted(videos, gt_name)
    for video_id in tqdm(video_ids, "scoring", unit="video", disable=None if progress else True):
        video = videos[video_id]
        ours = _read_tracks(predictions.pop(video_id, {}), video, is_label=False)
        theirs = _read_tracks(labels.pop(video_id, {}), video, is_label=True)
        for category_id in category_names:
            if category_id not in ours and category_id not in theirs:
                continue
            predicted, labelled = ours.get(category_id, nothing), theirs.get(category_id, nothing)
            shared = _intersect(predicted, labelled)
            resized += int(np.count_nonzero(shared < 0))
            frames = _num_frames(video, predicted.tracks, labelled.tracks)
            pairs.append(
                ClassOverlap(video_id, category_id, frames, predicted.tracks, labelled.tracks, shared)
            )
    if resized:
        notes.append(f"{result_name}: {resized} pairs of masks differ in size from the label's; not counted")
    return Overlaps(category_names, pairs, notes)


def _index(ground_truth: dict[str, Any], key: str, name: str) -> dict[Id, dict[str, Any]]:
    """Records of `videos` or `categories` by id."""
    records = ground_truth.get(key)
    if not isinstance(records, list):
        raise UserError(f"{name}: '{key}' is missing or not a list")
    index: dict[Id, dict[str, Any]] = {}
    for place, record in enumerate(records):
        record_id = _field(record, "id", f"{name}: {key}[{place}]")
        if record_id in index:
            raise UserError(f"{name}: {key}[{place}]: id {record_id!r} is used twice; give each its own")
        index[record_id] = record
    return index


def _sorted(index: Iterable[Id], name: str) -> list[Id]:
    """The ids in ascending order."""
    try:
        return sorted(index)  # type: ignore[type-var]  # all numbers or all strings, else a TypeError
    except TypeError:
        raise UserError(f"{name}: ids mix numbers and strings; use one kind") from None


def _group(
    records: list[dict[str, Any]],
    videos: Mapping[Id, object],
    categories: Mapping[Id, object],
    name: str,
    notes: list[str] | None,
) -> dict[Id, dict[Id, list[_Located]]]:
    """Records by video id, then category id.

    Unknown categories raise an error if `notes` is None; else they are left out, with a note.
    """
    if not isinstance(records, list):
        raise UserError(f"{name}: expected a list, got {type(records).__name__}")
    groups: dict[Id, dict[Id, list[_Located]]] = {}
    unknown = []
    for place, record in enumerate(records):
        where = f"{name}[{place}]"
        video_id, category_id = _field(record, "video_id", where), _field(record, "category_id", where)
        if video_id not in videos:
            raise UserError(f"{where}: video_id {video_id!r} is not among the annotation file's videos")
        if category_id not in categories:
            if notes is None:
                raise UserError(f"{where}: category_id {category_id!r} is not among the file's categories")
            unknown.append(category_id)
            continue
        groups.setdefault(video_id, {}).setdefault(category_id, []).append(_Located(where, record))
    if unknown and notes is not None:
        notes.append(f"{name}: {len(unknown)} tracks of unknown categories left out, first {unknown[0]!r}")
    return groups


def _field(record: dict[str, Any], key: str, where: str) -> Id:
    """The id `record[key]`, or a UserError."""
    if not isinstance(record, dict) or key not in record:
        raise UserError(f"{where}: '{key}' is missing")
    if not isinstance(record[key], Real | str):
        raise UserError(f"{where}: '{key}' must be a number or a string, got {record[key]!r:.40}")
    return record[key]


def _num_frames(video: dict[str, Any], predicted: Tracks, labelled: Tracks) -> int:
    """The number of frames of the video, from its record or else from its longest track."""
    if isinstance(video.get("file_names"), list):
        return len(video["file_names"])
    if isinstance(video.get("length"), int):
        return video["length"]
    return max(predicted.areas.shape[1], labelled.areas.shape[1])


def _read_tracks(
    groups: Mapping[Id, list[_Located]], video: dict[str, Any], is_label: bool
) -> dict[Id, _TracksAndMasks]:
    """Tracks and masks by category id of the records of one video."""
    located = [entry for group in groups.values() for entry in group]
    for where, record in located:
        if not isinstance(record.get("segmentations"), list):
            raise UserError(f"{where}: 'segmentations' is missing or not a list")
    size: Any = video.get("height"), video.get("width")  # None if unknown; only polygons need it
    try:
        found = iter(read_tracks([record["segmentations"] for _, record in located], size))
    except BrokenMask as error:
        where, record = located[error.track]
        raise UserError(f"{where} (video_id {record['video_id']}): {error}") from None
    tracks = {}
    for category_id, group in groups.items():
        rles, areas = zip(*[next(found) for _ in group])
        tracks[category_id] = _TracksAndMasks(_tabulate(group, areas, is_label), rles)
    return tracks


def _tabulate(located: Sequence[_Located], areas: Sequence[np.ndarray], is_label: bool) -> Tracks:
    """Build `Tracks` from records and the areas of their masks, one array per record."""
    lengths = np.array([len(row) for row in areas], int)
    table = np.full((len(areas), lengths.max(initial=0)), -1, np.int64)
    for row, values in zip(table, areas):
        row[: len(values)] = values
    if is_label:
        scores = np.ones(len(located))
        crowd = np.array([bool(record.get("iscrowd")) for _, record in located], bool)
        mean_area = np.array(list(map(_mean_area, map(_stated_areas, located, areas))), float)
    else:
        scores, crowd = np.array(list(map(_score, located)), float), np.zeros(len(located), bool)
        mean_area = np.maximum(table, 0).sum(1) / np.maximum((table > 0).sum(1), 1)
    return Tracks(scores, crowd, mean_area, lengths, table)


def _score(located: _Located) -> float:
    where, record = located
    score = record.get("score")
    if isinstance(score, bool) or not isinstance(score, Real) or math.isnan(score):
        raise UserError(f"{where}: 'score' must be a number, got {score!r}")
    return float(score)


def _stated_areas(located: _Located, measured: np.ndarray) -> np.ndarray:
    """The label's `areas` in the file, else the areas of its masks (the official code requires `areas`)."""
    where, record = located
    stated = record.get("areas")
    if stated is None:
        return measured
    try:
        return np.array([area or 0 for area in stated], float)
    except (TypeError, ValueError):
        raise UserError(f"{where}: 'areas' must be a list of numbers and nulls") from None


def _mean_area(areas: np.ndarray) -> float:
    """Mean of the areas above zero (0 and -1 mean that there is no mask), 0 if there are none."""
    there = areas[areas > 0]
    return there.mean() if len(there) else 0.0


def _intersect(predicted: _TracksAndMasks, labelled: _TracksAndMasks) -> np.ndarray:
    """(D, G, T) int64, common pixels in each frame as in `ClassOverlap.intersection`."""
    frames = min(predicted.tracks.areas.shape[1], labelled.tracks.areas.shape[1])
    ours, theirs = predicted.tracks.areas[:, :frames], labelled.tracks.areas[:, :frames]
    ratio = np.zeros((frames, len(ours), len(theirs)))
    per_frame = zip(zip_longest(*predicted.rles), zip_longest(*labelled.rles))
    for found, (our_rles, their_rles) in zip(ratio, per_frame):
        rows = {row: rle for row, rle in enumerate(our_rles) if rle}
        columns = {column: rle for column, rle in enumerate(their_rles) if rle}
        if rows and columns:
            ratios = overlap_ratios(list(rows.values()), list(columns.values()))
            found[np.ix_(list(rows), list(columns))] = ratios
    return common_pixels(ratio.transpose(1, 2, 0), ours[:, None], theirs[None])
