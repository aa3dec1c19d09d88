"""Overlap of every labelled track with every predicted track, the common input of all evaluators.

Tracks are compared within one video and one category. Each mask is read once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

from masktrack_jax.data.labels import LabelsFile, check_labels
from masktrack_jax.data.values import Id
from masktrack_jax.evaluation.faults import Refusals
from masktrack_jax.evaluation.tracks import (
    OTHER_SIZE,
    Track,
    VideoShape,
    read_masks,
    tracks_to_score,
    video_shapes,
)
from masktrack_jax.masks.overlap import common_pixels, overlap_ratios
from masktrack_jax.masks.rle import Rle
from masktrack_jax.runtime.errors import UserError

NO_LABELS = (
    "has no annotations; the labels of public validation and test sets stay on their server: upload "
    "results.json there, or score on videos with labels"
)

T = TypeVar("T")


@dataclass(frozen=True)
class Tracks:
    """The N tracks of one category in one video, labelled or predicted, in the order of the file; T frames.

    Attributes:
      scores: (N,) float, 1 for ground truth.
      crowd: (N,) bool, False for predictions.
      mean_area: (N,) float, mean over the frames with a non-zero area, 0 without such a frame. For ground
        truth it is the mean of the areas stated in the file, as in the official evaluator.
      lengths: (N,) int, number of entries of each track's `segmentations`; T is the largest, but at most the
        number of frames of the video.
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


class _TracksAndMasks(NamedTuple):
    """Tracks, and for each of them the RLE of every frame, None where there is no mask."""

    tracks: Tracks
    rles: Sequence[Sequence[Rle | None]]


def compute_overlaps(
    ground_truth: dict[str, Any],
    results: object,
    names: tuple[str, str] = ("ground truth", "results"),
    progress: bool = False,
) -> Overlaps:
    """Check the contents of an annotations file and a results file with these `names`; `overlap_tracks`."""
    labels, findings = check_labels(ground_truth, names[0]), Refusals(names[1])
    if labels.get("annotations") is None:
        raise UserError(f"{names[0]}: {NO_LABELS}")
    return overlap_tracks(labels, tracks_to_score(results, labels, findings), findings, progress)


def overlap_tracks(
    labels: LabelsFile, tracks: Sequence[Track], findings: Refusals, progress: bool = False
) -> Overlaps:
    """Intersect labels and predicted tracks.

    Args:
      labels: the content of an annotations file with labels.
      tracks: the tracks to score, in the order of the results file.
      findings: takes the faults of their masks.
      progress: show a progress bar on a terminal.
    Raises:
      UserError: a broken mask, or no mask has the size of its video.

    Annotation ids are not used, so 0 and duplicates have no effect. The official code treats a match with
    annotation 0 as no match, and scores the last of two equal ids twice.
    """
    shapes = video_shapes(labels)
    names = {category["id"]: str(category["name"]) for category in labels["categories"]}
    categories = {category_id: names[category_id] for category_id in sorted(names)}
    predictions = _group(tracks, ((track.video_id, track.category_id) for track in tracks))
    annotations = labels["annotations"]
    places = _group(range(len(annotations)), ((one["video_id"], one["category_id"]) for one in annotations))
    pairs, fits = [], False
    nothing = _TracksAndMasks(_tabulate([], 0, [], [], np.zeros(0)), [])
    video_ids: list[Any] = sorted(shapes)  # type: ignore[type-var]  # they are all numbers or all texts
    for video_id in tqdm(video_ids, "scoring", unit="video", disable=None if progress else True):
        shape = shapes[video_id]
        ours = _read_predictions(predictions.pop(video_id, {}), shape, findings)
        theirs = {
            category_id: _read_labels(labels, group)
            for category_id, group in places.get(video_id, {}).items()
        }
        for category_id in sorted(ours.keys() | theirs.keys()):
            predicted, labelled = ours.get(category_id, nothing), theirs.get(category_id, nothing)
            fits = fits or _has_mask_of_size(predicted, [shape.height, shape.width])
            shared = _intersect(predicted, labelled)
            pairs.append(
                ClassOverlap(video_id, category_id, shape.length, predicted.tracks, labelled.tracks, shared)
            )
    if OTHER_SIZE in findings.notes and not fits:
        example = findings.notes[OTHER_SIZE].examples[0]
        raise UserError(f"{findings.name}: no mask has the size of its video, so none counts: {example}")
    return Overlaps(categories, pairs, findings.one_liners())


def _group(records: Iterable[T], ids: Iterable[tuple[Id, Id]]) -> dict[Id, dict[Id, list[T]]]:
    """Records by video id, then category id, from the ids of each."""
    groups: dict[Id, dict[Id, list[T]]] = {}
    for record, (video_id, category_id) in zip(records, ids):
        groups.setdefault(video_id, {}).setdefault(category_id, []).append(record)
    return groups


def _has_mask_of_size(predicted: _TracksAndMasks, size: list[int]) -> bool:
    """Whether a mask inside of the video has this size."""
    frames = predicted.tracks.areas.shape[1]
    return any(rle is not None and rle["size"] == size for rles in predicted.rles for rle in rles[:frames])


def _read_predictions(
    groups: Mapping[Id, list[Track]], shape: VideoShape, findings: Refusals
) -> dict[Id, _TracksAndMasks]:
    """Tracks and masks by category id of the predictions in one video."""
    found = iter(read_masks([track for group in groups.values() for track in group], shape, findings))
    tracks = {}
    for category_id, group in groups.items():
        rles, areas = zip(*[next(found) for _ in group])
        # Masks beyond the end of the video count in the mean, as in the official code, and nowhere else.
        mean_area = np.array([np.maximum(row, 0).sum() / max(np.count_nonzero(row > 0), 1) for row in areas])
        scores, crowd = [track.score for track in group], [False] * len(group)
        tracks[category_id] = _TracksAndMasks(_tabulate(areas, shape.length, scores, crowd, mean_area), rles)
    return tracks


def _read_labels(labels: LabelsFile, places: Sequence[int]) -> _TracksAndMasks:
    """Tracks and masks of the annotations with these indices, of one category in one video."""
    records = [labels["annotations"][place] for place in places]
    areas = [np.array(labels.pixels[place], np.int64) for place in places]
    # The official code requires `areas` in the file.
    stated = [record.get("areas") or row for record, row in zip(records, areas)]
    mean_area = np.array([_mean_area(np.array([area or 0 for area in row], float)) for row in stated])
    crowd = [bool(record.get("iscrowd")) for record in records]
    tracks = _tabulate(areas, len(areas[0]), [1.0] * len(records), crowd, mean_area)
    return _TracksAndMasks(tracks, [record["segmentations"] for record in records])


def _tabulate(
    areas: Sequence[np.ndarray],
    frames: int,
    scores: Sequence[float],
    crowd: Sequence[bool],
    mean_area: np.ndarray,
) -> Tracks:
    """Build `Tracks` from the areas of their masks, one array per track, in at most `frames` frames."""
    lengths = np.array([len(row) for row in areas], int)
    table = np.full((len(areas), min(lengths.max(initial=0), frames)), -1, np.int64)
    for row, values in zip(table, areas):
        row[: len(values)] = values[: len(row)]
    return Tracks(np.array(scores, float), np.array(crowd, bool), mean_area, lengths, table)


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
