"""Official YouTube-VIS average precision and recall (youtubevos/cocoapi, `ytvoseval.py`).

A prediction is a whole track. Its IoU with a labelled track is one ratio of sums over frames, and its
size is the mean area of its masks. The rest is COCO's protocol: greedy matching by descending score
within a video and category, precision at 101 recalls, ten IoU thresholds.

Deliberate differences from the official code, which fails or is silently wrong in these cases:
  * empty results score 0 instead of raising an exception;
  * annotation ids are not used, so id 0 and duplicate ids count like any other;
  * missing `areas` of a label are measured from its masks, a missing `iscrowd` is 0;
  * results may hold uncompressed RLE and polygons too;
  * masks with runs of length 0 count in full, also where only one of two masks has such a run;
  * tracks of unknown categories are left out with a note, not silently;
  * faults of the files raise one-line errors, see `data.labels` and `evaluation.tracks`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from masktrack_jax.data.values import Id
from masktrack_jax.evaluation.overlaps import ClassOverlap, Overlaps, Tracks, compute_overlaps
from masktrack_jax.evaluation.tracks import MOST_TRACKS

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MAX_PREDICTIONS = (1, 10, MOST_TRACKS)
# Both ends are inclusive: 128² is small and medium.
AREA_RANGES = np.array([[0, 1e10], [0, 128**2], [128**2, 256**2], [256**2, 1e10]])

Ranges = Callable[[Tracks], np.ndarray]  # N tracks → (A, N) bool, the ranges that contain each track


class Statistic(NamedTuple):
    """A mean over part of `precision` or `recall`: indices of thresholds, area range and limit."""

    array: str
    thresholds: slice
    area: int
    limit: int


_ALL, _AT_50, _AT_75 = slice(None), slice(0, 1), slice(5, 6)
STATISTICS = {
    "AP": Statistic("precision", _ALL, 0, 2),
    "AP50": Statistic("precision", _AT_50, 0, 2),
    "AP75": Statistic("precision", _AT_75, 0, 2),
    "APs": Statistic("precision", _ALL, 1, 2),
    "APm": Statistic("precision", _ALL, 2, 2),
    "APl": Statistic("precision", _ALL, 3, 2),
    "AR1": Statistic("recall", _ALL, 0, 0),
    "AR10": Statistic("recall", _ALL, 0, 1),
    "AR100": Statistic("recall", _ALL, 0, 2),
    "ARs": Statistic("recall", _ALL, 1, 2),
    "ARm": Statistic("recall", _ALL, 2, 2),
    "ARl": Statistic("recall", _ALL, 3, 2),
}


@dataclass(frozen=True)
class VisMetrics:
    """Result of an evaluation; T thresholds, R recalls, K categories, A area ranges, M limits.

    Attributes:
      stats: the twelve official numbers by name, as fractions; None if there are no labels to average over.
      per_category: category id → {"name", the same twelve names}.
      precision, scores: (T, R, K, A, M) float64, -1 where a category has no label of that size.
      recall: (T, K, A, M) float64, likewise.
      ious: (video id, category id) → (D, G), rows are the predictions by descending score, columns the
        labels in the order of the file.
      matches: (video id, category id) → `Matches`.
      notes: lines to show to the user.
    """

    stats: dict[str, float | None]
    per_category: dict[Id, dict[str, Any]]
    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray
    ious: dict[tuple[Id, Id], np.ndarray]
    matches: dict[tuple[Id, Id], "Matches"]
    notes: list[str]

    def category_names(self) -> dict[Id, str]:
        """Category id → unique name: the id is added to names that several categories share."""
        names = {category_id: row["name"] for category_id, row in self.per_category.items()}
        taken = list(names.values())
        return {key: name if taken.count(name) == 1 else f"{name} ({key})" for key, name in names.items()}

    def to_dict(self) -> dict[str, Any]:
        """The twelve numbers, and `per_category` by name, for `metrics.json`."""
        rows = {
            name: {key: self.per_category[category_id][key] for key in STATISTICS}
            for category_id, name in self.category_names().items()
        }
        return self.stats | {"per_category": rows}


@dataclass(frozen=True)
class Matches:
    """Matching in one video and category: D predictions by descending score, A area ranges, T thresholds.

    Attributes:
      order: (D,) int, places of the predictions in the order of the file.
      scores: (D,) float.
      hit, ignored: (A, T, D) bool, whether a prediction matches a label, and whether it is ignored.
      num_labels: (A,) int, labels that are not ignored.
    """

    order: np.ndarray
    scores: np.ndarray
    hit: np.ndarray
    ignored: np.ndarray
    num_labels: np.ndarray


class _Curves(NamedTuple):
    """Precision and scores (T, R, A) over `RECALLS`, and the highest recall (T, A), of one category."""

    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray


def evaluate_vis(
    ground_truth: dict[str, Any],
    results: list[dict[str, Any]],
    names: tuple[str, str] = ("ground truth", "results"),
    progress: bool = False,
) -> VisMetrics:
    """`average_precision` of the contents of two files; see `compute_overlaps` for the arguments."""
    return average_precision(compute_overlaps(ground_truth, results, names, progress))


def in_area_ranges(tracks: Tracks) -> np.ndarray:
    """(A, N) bool, the `AREA_RANGES` in which each of N tracks lies."""
    return (tracks.mean_area >= AREA_RANGES[:, :1]) & (tracks.mean_area <= AREA_RANGES[:, 1:])


def average_precision(overlaps: Overlaps, ranges: Ranges = in_area_ranges) -> VisMetrics:
    """Official metrics, and precision and recall in any further `ranges` of tracks.

    The first four ranges must be the area ranges of the twelve numbers, see `in_area_ranges`.
    """
    ious, matches = {}, {}
    by_category: dict[Id, list[Matches]] = {category_id: [] for category_id in overlaps.categories}
    for pair in overlaps.pairs:
        # At most `MOST_TRACKS` per video *and* category; equal scores keep the order of the file.
        order = np.argsort(-pair.predicted.scores, kind="stable")[: MAX_PREDICTIONS[-1]]
        iou = track_iou(pair)[order]
        found = _match(pair, order, iou, ranges)
        ious[pair.video_id, pair.category_id] = iou
        matches[pair.video_id, pair.category_id] = found
        by_category[pair.category_id].append(found)
    num_ranges = max((len(found.num_labels) for found in matches.values()), default=len(AREA_RANGES))
    shape = (len(IOU_THRESHOLDS), len(RECALLS), len(by_category), num_ranges, len(MAX_PREDICTIONS))
    precision, scores, recall = -np.ones(shape), -np.ones(shape), -np.ones(shape[:1] + shape[2:])
    for k, videos in enumerate(by_category.values()):
        labelled = np.flatnonzero(sum(video.num_labels for video in videos))  # ranges that hold labels
        for m, limit in enumerate(MAX_PREDICTIONS if len(labelled) else ()):
            curves = _precision_recall(videos, labelled, limit)
            precision[:, :, k, labelled, m] = curves.precision
            recall[:, k, labelled, m] = curves.recall
            scores[:, :, k, labelled, m] = curves.scores
    per_category = {
        category_id: {"name": name} | _summarise(precision[:, :, [k]], recall[:, [k]])
        for k, (category_id, name) in enumerate(overlaps.categories.items())
    }
    stats = _summarise(precision, recall)
    return VisMetrics(stats, per_category, precision, recall, scores, ious, matches, overlaps.notes)


def track_iou(pair: ClassOverlap) -> np.ndarray:
    """Spatio-temporal IoU (D, G): intersection summed over frames, divided by the union summed over frames.

    Frames after the end of the shorter track, and frames whose two masks differ in size, are left out
    of both sums; a mask without a counterpart counts in the union. An empty union gives 0.
    """
    predicted, labelled = pair.predicted, pair.labelled
    frames = pair.intersection.shape[-1]
    if not pair.intersection.size:  # most pairs: the category is only predicted
        return np.zeros(pair.intersection.shape[:2])
    last = np.minimum(predicted.lengths[:, None], labelled.lengths[None, :])
    counts = (np.arange(frames) < last[..., None]) & (pair.intersection >= 0)
    ours = np.maximum(predicted.areas[:, None, :frames], 0)
    theirs = np.maximum(labelled.areas[None, :, :frames], 0)
    common = np.where(counts, pair.intersection, 0).sum(-1)
    union = np.where(counts, ours + theirs, 0).sum(-1) - common
    return np.divide(common, union, out=np.zeros(union.shape), where=union > 0)


def _match(pair: ClassOverlap, order: np.ndarray, iou: np.ndarray, ranges: Ranges) -> Matches:
    """Match greedily for all area ranges and thresholds at once.

    Each prediction in turn takes one of the free labels whose IoU reaches the threshold; a crowd is always
    free. It prefers labels that count over ignored ones (crowds, other sizes), then the higher IoU, then
    the later label. A prediction that matches an ignored label is ignored, as is an unmatched one whose own
    size is outside the range.
    """
    labels = pair.labelled
    ignore_label = labels.crowd | ~ranges(labels)  # (A, G)
    shape = (len(ignore_label), len(IOU_THRESHOLDS), len(order))
    hit, ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    ignored |= ~ranges(pair.predicted)[:, None, order]
    free = np.ones((*shape[:2], iou.shape[1]), bool)
    reached = iou[:, None] >= IOU_THRESHOLDS[:, None]  # (D, T, G)
    rows = np.flatnonzero(reached.any((1, 2)))
    for d, rank in zip(rows, _rank(iou[rows], ignore_label) if len(rows) else ()):
        choice = np.where(reached[d] & free, rank[:, None], -1)  # (A, T, G)
        label = choice.argmax(-1)
        a, t = np.nonzero(choice.max(-1) >= 0)
        taken = label[a, t]
        hit[a, t, d] = True
        ignored[a, t, d] = ignore_label[a, taken]
        free[a, t, taken] = labels.crowd[taken]
    num_labels = np.count_nonzero(~ignore_label, axis=1)
    return Matches(order, pair.predicted.scores[order], hit, ignored, num_labels)


def _rank(iou: np.ndarray, ignore: np.ndarray) -> np.ndarray:
    """(D, A, G) int, rank of each label for each prediction; the highest rank is preferred."""
    shape = (len(iou), *ignore.shape)
    keys = np.arange(iou.shape[1]), iou[:, None], ~ignore
    return np.lexsort([np.broadcast_to(key, shape) for key in keys], axis=-1).argsort(axis=-1)


def _precision_recall(videos: Sequence[Matches], ranges: np.ndarray, limit: int) -> _Curves:
    """Curves of one category in the area ranges (A,), with at most `limit` predictions per video.

    Precision at a recall is the highest one at that recall or above, and 0 beyond the highest recall. The
    score is that of the prediction that first reaches the recall. Each of the ranges must contain a label.
    """
    scores = np.concatenate([video.scores[:limit] for video in videos])
    order = np.argsort(-scores, kind="stable")
    hit = np.concatenate([video.hit[ranges, :, :limit] for video in videos], axis=-1)[..., order]
    ignored = np.concatenate([video.ignored[ranges, :, :limit] for video in videos], axis=-1)[..., order]
    num_labels = np.sum([video.num_labels[ranges] for video in videos], axis=0)
    true = np.cumsum(hit & ~ignored, axis=-1)  # (A, T, N)
    false = np.cumsum(~hit & ~ignored, axis=-1)
    recall = true / num_labels[:, None, None]
    precision = true / (true + false + np.spacing(1))
    precision = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    # Recalls that are never reached read the additional column of zeros.
    padded = np.concatenate([precision, np.zeros((*precision.shape[:2], 1))], axis=-1)
    first = np.array([[np.searchsorted(row, RECALLS, side="left") for row in rows] for rows in recall])
    at_recalls = np.take_along_axis(padded, first, axis=-1)
    reached = recall[..., -1] if len(scores) else np.zeros(recall.shape[:2])
    first_scores = np.append(scores[order], 0.0)[first]
    return _Curves(at_recalls.transpose(1, 2, 0), reached.T, first_scores.transpose(1, 2, 0))


def _summarise(precision: np.ndarray, recall: np.ndarray) -> dict[str, float | None]:
    """The twelve numbers of (T, R, K, A, M) precision and (T, K, A, M) recall, None if all values are -1."""
    arrays = {"precision": precision, "recall": recall}
    stats = {}
    for name, (array, thresholds, area, limit) in STATISTICS.items():
        values = arrays[array][thresholds, ..., area, limit]
        values = values[values > -1]
        stats[name] = float(values.mean()) if len(values) else None
    return stats
