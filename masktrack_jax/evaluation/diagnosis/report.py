"""Diagnosis: the gain of AP when one kind of error is corrected, overall and in each bucket.

The dAP of an error is AP after its correction (`corrections`) minus AP. The five do not add up to 1 − AP,
because a track may have several errors at once. One may be negative: cutting a mixed track can leave two
false tracks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from masktrack_jax.data.labels import LabelsFile
from masktrack_jax.data.values import Id
from masktrack_jax.evaluation.diagnosis.buckets import make_buckets
from masktrack_jax.evaluation.diagnosis.comparisons import by_category, read_comparisons
from masktrack_jax.evaluation.diagnosis.corrections import CORRECTIONS, correct_all
from masktrack_jax.evaluation.diagnosis.worst import (
    WorstObject,
    WorstTrack,
    best_ious,
    worst_objects,
    worst_tracks,
)
from masktrack_jax.evaluation.overlaps import Tracks
from masktrack_jax.evaluation.tracks import Track
from masktrack_jax.evaluation.vis_ap import AREA_RANGES, VisMetrics, average_precision, in_area_ranges
from masktrack_jax.runtime.errors import printable

KINDS = {
    "identities": "association",
    "classes": "classification",
    "masks": "segmentation",
    "missed": "missed detections",
    "false": "false detections",
}
SCORE_BINS = np.linspace(0, 1, 11)


@dataclass(frozen=True)
class Diagnosis:
    """Result of `diagnose`.

    Attributes:
      report: content of `diagnosis` in `metrics.json`, see `diagnose`.
      precision: (T, R) precision at `IOU_THRESHOLDS` and `RECALLS`, mean over the categories.
      worst_objects, worst_tracks: the worst first.
    """

    report: dict[str, Any]
    precision: np.ndarray
    worst_objects: list[WorstObject]
    worst_tracks: list[WorstTrack]


def diagnose(
    labels: LabelsFile,
    tracks: Sequence[Track],
    notes: Sequence[str] = (),
    progress: bool = False,
    worst: int = 6,
) -> Diagnosis:
    """Diagnose tracks whose masks `overlap_tracks` has checked.

    `notes` are its notes: lines on what the score leaves out. `worst` is the number of worst objects and of
    worst tracks.

    The report contains
      AP, AP50: as scored;
      corrected: AP after each of `CORRECTIONS` alone and after all of them;
      gains, gains50: dAP of each, over all IoU thresholds and at IoU 0.5;
      summary: one sentence;
      buckets: list of {kind, name, labels, AP, gains};
      per_category: name → {labels, AP, gains};
      calibration: list of {low, high, tracks, mean_score, right} by score, `right` the share of tracks that
        match a label at IoU ≥ 0.5;
      notes: lines to show to the user.
    Values are None if there are no labels to average over.
    """
    categories, comparisons = read_comparisons(labels, tracks, progress)
    buckets = make_buckets(comparisons)

    def ranges(tracks: Tracks) -> np.ndarray:
        return np.stack([*in_area_ranges(tracks), *(bucket.holds(tracks) for bucket in buckets)])

    before = average_precision(by_category(comparisons, categories), ranges)
    after, best = {}, {}
    for name, correct in (CORRECTIONS | {"all": correct_all}).items():
        corrected = [correct(video) for video in comparisons]
        after[name] = average_precision(by_category(corrected, categories), ranges)
        best[name] = best_ious(after[name], comparisons, categories)
    report: dict[str, Any] = {
        "AP": before.stats["AP"],
        "AP50": before.stats["AP50"],
        "corrected": {name: metrics.stats["AP"] for name, metrics in after.items()},
        "gains": _gains(before, after, lambda metrics: metrics.stats["AP"]),
        "gains50": _gains(before, after, lambda metrics: metrics.stats["AP50"]),
        "buckets": [
            {"kind": bucket.kind, "name": bucket.name}
            | _row(before, after, partial(_ap, area_range=a))
            | {"labels": _num_labels(before, a)}
            for a, bucket in enumerate(buckets, len(AREA_RANGES))
        ],
        "per_category": {
            name: _row(before, after, partial(_ap, category=k))
            | {"labels": _num_labels(before, 0, category_id)}
            for k, (category_id, name) in enumerate(before.category_names().items())
        },
        "calibration": _calibration(before),
        "notes": [*notes, *_notes(after)],
    }
    report["summary"] = summarise(report, bool(notes))
    labelled = before.precision[0, 0, :, 0, 2] > -1
    precision = before.precision[:, :, labelled, 0, 2].mean(-1) if labelled.any() else np.zeros((10, 101))
    unique_names = list(before.category_names().values())
    objects = worst_objects(
        comparisons, best_ious(before, comparisons, categories), best, unique_names, worst
    )
    false_tracks = worst_tracks(comparisons, before, categories, unique_names, worst)
    return Diagnosis(report, precision, objects, false_tracks)


def summarise(report: dict[str, Any], noted: bool = False) -> str:
    """One sentence on the corrections with the largest gains; `noted` if there are notes on the results."""
    gains = {name: gain for name, gain in report["gains"].items() if gain is not None}
    order = sorted(gains, key=lambda name: gains[name], reverse=True)
    if not order or report["AP"] is None:
        return "There are no labels to score on."
    score = f"AP is {report['AP']:.3f}."
    if gains[order[0]] < 0.0005:
        if report["AP"] > 0.9995:
            return f"{score} No correction raises it, but see the notes." if noted else f"{score} {_PERFECT}"
        return f"{score} No single correction helps: the tracks have several kinds of error at once."
    best, second = order[0], order[1]
    sentence = f"{score} The largest gain would come from {_WISH[best]} (+{gains[best]:.3f}, {KINDS[best]})"
    if gains[second] >= 0.0005:
        sentence += f", then from {_WISH[second]} (+{gains[second]:.3f}, {KINDS[second]})"
    return sentence + "."


_PERFECT = "There is nothing to gain."
_WISH = {
    "identities": "keeping each object in one track",
    "classes": "the right class for each track",
    "masks": "better masks",
    "missed": "finding missed objects",
    "false": "removing false tracks",
}


def format_diagnosis(report: dict[str, Any]) -> str:
    """Format the report as a table, with a row for all labels, each bucket and each category."""
    rows = [("all", report)]
    rows += [(f"{bucket['kind']}: {bucket['name']}", bucket) for bucket in report["buckets"]]
    rows += [(printable(name), row) for name, row in report["per_category"].items()]
    width = max(len(name) for name, _ in rows)
    title = "dAP: gain of AP when one kind of error is corrected"
    lines = [title, f"{'':<{width}}  {'AP':>6}  " + "  ".join(f"{name:>10}" for name in CORRECTIONS)]
    for i, (name, row) in enumerate(rows):
        if i in (1, 1 + len(report["buckets"])):
            lines.append("")
        cells = "  ".join(f"{_text(row['gains'][key], '+.3f'):>10}" for key in CORRECTIONS)
        lines.append(f"{name:<{width}}  {_text(row['AP'], '.3f'):>6}  {cells}")
    return "\n".join([*lines, "", report["summary"]])


def _text(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _ap(metrics: VisMetrics, category: int | None = None, area_range: int = 0) -> float | None:
    """AP of one category (by index) or all, in one range of tracks; None if it contains no labels."""
    values = metrics.precision[:, :, slice(None) if category is None else category, area_range, 2]
    values = values[values > -1]
    return float(values.mean()) if len(values) else None


Value = Callable[[VisMetrics], float | None]


def _gains(before: VisMetrics, after: Mapping[str, VisMetrics], value: Value) -> dict[str, float | None]:
    """The increase of a value by each correction."""
    start, ends = value(before), {name: value(after[name]) for name in CORRECTIONS}
    return {name: None if start is None or end is None else end - start for name, end in ends.items()}


def _row(before: VisMetrics, after: Mapping[str, VisMetrics], value: Value) -> dict[str, Any]:
    return {"AP": value(before), "gains": _gains(before, after, value)}


def _num_labels(metrics: VisMetrics, area_range: int, only: Id | None = None) -> int:
    """Number of labels in one range of tracks, of one category or of all."""
    matches = metrics.matches.items()
    return sum(int(found.num_labels[area_range]) for (_, c), found in matches if only is None or c == only)


def _notes(after: Mapping[str, VisMetrics]) -> list[str]:
    full = after["all"].stats["AP"]
    if full is None or full > 1 - 1e-9:
        return []
    return [f"all corrections together reach AP {full:.4f}, not 1: some labels have no mask"]


def _calibration(metrics: VisMetrics) -> list[dict[str, Any]]:
    """For each bin of scores, the share of tracks that match a label at IoU 0.5, without ignored tracks."""
    counted = [(match, ~match.ignored[0, 0]) for match in metrics.matches.values()]
    scores = np.concatenate([np.zeros(0), *(match.scores[rows] for match, rows in counted)])
    hits = np.concatenate([np.zeros(0, bool), *(match.hit[0, 0][rows] for match, rows in counted)])
    bins = np.clip(np.digitize(scores, SCORE_BINS) - 1, 0, len(SCORE_BINS) - 2)
    table = []
    for i, (low, high) in enumerate(pairwise(SCORE_BINS)):
        inside = bins == i
        table.append(
            {
                "low": round(float(low), 1),
                "high": round(float(high), 1),
                "tracks": int(inside.sum()),
                "mean_score": float(scores[inside].mean()) if inside.any() else None,
                "right": float(hits[inside].mean()) if inside.any() else None,
            }
        )
    return table
