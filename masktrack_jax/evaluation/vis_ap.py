"""Official YouTube-VIS average precision and recall (youtubevos/cocoapi, `ytvoseval.py`).

A prediction is a whole track. Its overlap with a labelled track is one ratio of sums over frames, its
size the mean area of its masks. Everything after that is COCO's protocol: greedy matching by falling
score inside (video, category), precision at 101 recalls, ten overlap thresholds.

Where this differs from the official code on purpose (it stops, or is silently wrong):
  * no results at all score 0 instead of an exception;
  * annotation ids are not used, so id 0 and ids used twice count like any other;
  * `areas` or `iscrowd` missing from a label: measured from the masks, taken as 0;
  * results may hold uncompressed masks and polygons too;
  * masks with runs of no pixels count whole, not only as far as both sides have one at the same pixel;
  * the inputs listed at `overlaps.compute_overlaps` are errors of one line.
"""

from dataclasses import dataclass

import numpy as np

from masktrack_jax.evaluation.overlaps import compute_overlaps

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MAX_PREDICTIONS = (1, 10, 100)
# Inclusive at both ends: 128² is small and medium.
AREA_RANGES = np.array([[0, 1e10], [0, 128**2], [128**2, 256**2], [256**2, 1e10]])

# name: (which array, slice of thresholds, area range, place in MAX_PREDICTIONS)
_ANY, _AT_50, _AT_75 = slice(None), slice(0, 1), slice(5, 6)
STATISTICS = {
    "AP": ("precision", _ANY, 0, 2),
    "AP50": ("precision", _AT_50, 0, 2),
    "AP75": ("precision", _AT_75, 0, 2),
    "APs": ("precision", _ANY, 1, 2),
    "APm": ("precision", _ANY, 2, 2),
    "APl": ("precision", _ANY, 3, 2),
    "AR1": ("recall", _ANY, 0, 0),
    "AR10": ("recall", _ANY, 0, 1),
    "AR100": ("recall", _ANY, 0, 2),
    "ARs": ("recall", _ANY, 1, 2),
    "ARm": ("recall", _ANY, 2, 2),
    "ARl": ("recall", _ANY, 3, 2),
}


@dataclass(frozen=True)
class VisMetrics:
    """The result of an evaluation; T thresholds, R recalls, K categories, A area ranges, M limits.

    Attributes:
      stats: the twelve official numbers by name, fractions, None where there is nothing to average.
      per_category: category id → {"name", the same twelve names}.
      precision, scores: (T, R, K, A, M) float64, -1 where a category has no label of that size.
      recall: (T, K, A, M) float64, likewise.
      ious: (video id, category id) → (D, G), rows the predictions by falling score, columns the
        labels in the order of the file.
      matches: (video id, category id) → `Matches`.
      notes: lines a person should read.
    """

    stats: dict
    per_category: dict
    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray
    ious: dict
    matches: dict
    notes: list

    def category_names(self):
        """Category id → a name of its own: two categories called the same stay apart by their id."""
        names = {category_id: row["name"] for category_id, row in self.per_category.items()}
        taken = list(names.values())
        return {key: name if taken.count(name) == 1 else f"{name} ({key})" for key, name in names.items()}

    def to_dict(self):
        """What `metrics.json` holds: the twelve numbers and `per_category` by name."""
        rows = {
            name: {key: self.per_category[category_id][key] for key in STATISTICS}
            for category_id, name in self.category_names().items()
        }
        return self.stats | {"per_category": rows}


@dataclass(frozen=True)
class Matches:
    """Outcome in one video and category: D predictions by falling score, A area ranges, T thresholds.

    `order` (D,) places of the predictions among those of the pair, `scores` (D,), `hit` and `ignored`
    (A, T, D) bool, `num_labels` (A,) labels that count.
    """

    order: np.ndarray
    scores: np.ndarray
    hit: np.ndarray
    ignored: np.ndarray
    num_labels: np.ndarray


def evaluate_vis(ground_truth, results, names=("ground truth", "results"), progress=False):
    """Scores a list of predicted tracks: `average_precision` of `compute_overlaps`, see there."""
    return average_precision(compute_overlaps(ground_truth, results, names, progress))


def in_area_ranges(tracks):
    """(A, N) bool, which of N tracks lie in which of `AREA_RANGES`."""
    return (tracks.mean_area >= AREA_RANGES[:, :1]) & (tracks.mean_area <= AREA_RANGES[:, 1:])


def average_precision(overlaps, ranges=in_area_ranges):
    """The `VisMetrics` of an `Overlaps`.

    `ranges` of a `Tracks` is (A, N) bool, which of its N tracks lie in which range; any rule will do. The
    first four of them are the area ranges of the twelve numbers.
    """
    ious, matches, by_category = {}, {}, {category_id: [] for category_id in overlaps.categories}
    for pair in overlaps.pairs:
        # At most 100 predictions a video *and* category; equal scores keep the order of the file.
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
        labelled = np.flatnonzero(sum(video.num_labels for video in videos))
        for m, limit in enumerate(MAX_PREDICTIONS if len(labelled) else ()):
            curves = _precision_recall(videos, labelled, limit)
            precision[:, :, k, labelled, m], recall[:, k, labelled, m], scores[:, :, k, labelled, m] = curves
    per_category = {
        category_id: {"name": name} | _summarise(precision[:, :, [k]], recall[:, [k]])
        for k, (category_id, name) in enumerate(overlaps.categories.items())
    }
    stats = _summarise(precision, recall)
    return VisMetrics(stats, per_category, precision, recall, scores, ious, matches, overlaps.notes)


def track_iou(pair):
    """Spatio-temporal IoU (D, G) of a `ClassOverlap`: common pixels of all frames by their union.

    Frames after the end of the shorter list, and frames whose two masks differ in size, are left out
    of both sums; a mask without a counterpart counts in the union. 0 where the union is empty.
    """
    predicted, labelled = pair.predicted, pair.labelled
    frames = pair.intersection.shape[-1]
    if not pair.intersection.size:  # most pairs: a category that is only predicted
        return np.zeros(pair.intersection.shape[:2])
    last = np.minimum(predicted.lengths[:, None], labelled.lengths[None, :])
    counts = (np.arange(frames) < last[..., None]) & (pair.intersection >= 0)
    ours = np.maximum(predicted.areas[:, None, :frames], 0)
    theirs = np.maximum(labelled.areas[None, :, :frames], 0)
    common = np.where(counts, pair.intersection, 0).sum(-1)
    union = np.where(counts, ours + theirs, 0).sum(-1) - common
    return np.divide(common, union, out=np.zeros(union.shape), where=union > 0)


def _match(pair, order, iou, ranges):
    """Greedy matching at every area range and threshold at once.

    Predictions choose in turn among the labels that reach the threshold and are free; a crowd always
    is. Labels that count come before ignored ones (crowds, other sizes), then the higher IoU, then
    the later label. A prediction on an ignored label is ignored, as is one without a label whose own
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


def _rank(iou, ignore):
    """Place (D, A, G) of each label in each prediction's preference, the best highest."""
    shape = (len(iou), *ignore.shape)
    keys = np.arange(iou.shape[1]), iou[:, None], ~ignore
    return np.lexsort([np.broadcast_to(key, shape) for key in keys], axis=-1).argsort(axis=-1)


def _precision_recall(videos, ranges, limit):
    """Curves of one category in area ranges (A,) that hold labels, with a limit of predictions a video.

    Returns:
      precision (T, R, A) at `RECALLS`, the best precision at that recall or beyond, 0 past the last;
      recall (T, A) reached; scores (T, R, A) of the prediction that first reaches each recall.
    """
    scores = np.concatenate([video.scores[:limit] for video in videos])
    order = np.argsort(-scores, kind="stable")
    hit = np.concatenate([video.hit[ranges, :, :limit] for video in videos], axis=-1)[..., order]
    ignored = np.concatenate([video.ignored[ranges, :, :limit] for video in videos], axis=-1)[..., order]
    num_labels = sum(video.num_labels[ranges] for video in videos)
    true = np.cumsum(hit & ~ignored, axis=-1)  # (A, T, N)
    false = np.cumsum(~hit & ~ignored, axis=-1)
    recall = true / num_labels[:, None, None]
    precision = true / (true + false + np.spacing(1))
    precision = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    # One more column of zeros is what recalls never reached read.
    padded = np.concatenate([precision, np.zeros((*precision.shape[:2], 1))], axis=-1)
    first = np.array([[np.searchsorted(row, RECALLS, side="left") for row in rows] for rows in recall])
    at_recalls = np.take_along_axis(padded, first, axis=-1)
    reached = recall[..., -1] if len(scores) else np.zeros(recall.shape[:2])
    return at_recalls.transpose(1, 2, 0), reached.T, np.append(scores[order], 0.0)[first].transpose(1, 2, 0)


def _summarise(precision, recall):
    """The twelve numbers of (T, R, K, A, M) precision and (T, K, A, M) recall, None for no value."""
    arrays = {"precision": precision, "recall": recall}
    stats = {}
    for name, (kind, thresholds, area, limit) in STATISTICS.items():
        values = arrays[kind][thresholds, ..., area, limit]
        values = values[values > -1]
        stats[name] = float(values.mean()) if len(values) else None
    return stats
