"""Why is AP low? The gain from correcting one kind of error at a time, overall and by bucket.

dAP of an error is AP after its correction (`corrections`) minus AP. The five do not add up to 1 − AP, since
a track may have several errors at once, and one may be negative: a cut track can leave two false ones.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from masktrack_jax.evaluation.diagnosis.buckets import make_buckets
from masktrack_jax.evaluation.diagnosis.corrections import CORRECTIONS, correct_all
from masktrack_jax.evaluation.diagnosis.scenes import by_category, read_scenes
from masktrack_jax.evaluation.diagnosis.worst import best_ious, worst_objects, worst_tracks
from masktrack_jax.evaluation.vis_ap import AREA_RANGES, average_precision, in_area_ranges

KINDS = {
    "identities": "association",
    "classes": "classification",
    "masks": "segmentation",
    "missed": "detection, missed",
    "false": "detection, false",
}
SCORE_BINS = np.linspace(0, 1, 11)


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found.

    Attributes:
      report: what `metrics.json` holds under `diagnosis`, see `diagnose`.
      precision: (T, R) precision at `IOU_THRESHOLDS` and `RECALLS`, mean over the categories.
      worst_objects, worst_tracks: lists of dicts for `pictures`, the worst first.
    """

    report: dict
    precision: np.ndarray
    worst_objects: list
    worst_tracks: list


def diagnose(ground_truth, results, names=("ground truth", "results"), progress=False, worst=6):
    """The `Diagnosis` of results that `score` has scored already (it checks them).

    The report holds
      AP, AP50: as scored; corrected: AP after each of `CORRECTIONS` alone and after all;
      gains: dAP of each; gains50: the same at IoU 0.5; summary: one sentence;
      buckets: list of {kind, name, labels, AP, gains}; per_category: name → {labels, AP, gains};
      calibration: list of {low, high, tracks, mean_score, right}, `right` the share that hit a label at
        IoU ≥ 0.5, of tracks by score; notes: lines a person should read.
    Values are None where there is nothing to average.
    """
    categories, scenes = read_scenes(ground_truth, results, names, progress)
    buckets = make_buckets(scenes)

    def ranges(tracks):
        return np.stack([*in_area_ranges(tracks), *(bucket.holds(tracks) for bucket in buckets)])

    before = average_precision(by_category(scenes, categories), ranges)
    after, best = {}, {}
    for name, correct in (CORRECTIONS | {"all": correct_all}).items():
        corrected = [correct(scene) for scene in scenes]
        after[name] = average_precision(by_category(corrected, categories), ranges)
        best[name] = best_ious(after[name], scenes, categories)
    first = len(AREA_RANGES)
    report = {
        "AP": before.stats["AP"],
        "AP50": before.stats["AP50"],
        "corrected": {name: metrics.stats["AP"] for name, metrics in after.items()},
        "gains": _gains(before, after, lambda m: m.stats["AP"]),
        "gains50": _gains(before, after, lambda m: m.stats["AP50"]),
        "buckets": [
            {"kind": bucket.kind, "name": bucket.name}
            | _row(before, after, lambda m, a=a: _mean(m.precision[..., a, 2]))
            | {"labels": _num_labels(before, a)}
            for a, bucket in enumerate(buckets, first)
        ],
        "per_category": {
            name: _row(before, after, lambda m, k=k: _mean(m.precision[:, :, k, 0, 2]))
            | {"labels": _num_labels(before, 0, category_id)}
            for k, (category_id, name) in enumerate(before.category_names().items())
        },
        "calibration": _calibration(before),
        "notes": _notes(after),
    }
    report["summary"] = summarise(report)
    labelled = before.precision[0, 0, :, 0, 2] > -1
    precision = before.precision[:, :, labelled, 0, 2].mean(-1) if labelled.any() else np.zeros((10, 101))
    names_of = list(before.category_names().values())
    objects = worst_objects(scenes, best_ious(before, scenes, categories), best, names_of, worst)
    tracks = worst_tracks(scenes, before, categories, names_of, worst)
    return Diagnosis(report, precision, objects, tracks)


def summarise(report):
    """One sentence on what limits the number."""
    gains = {name: gain for name, gain in report["gains"].items() if gain is not None}
    order = sorted(gains, key=gains.get, reverse=True)
    if not order or report["AP"] is None:
        return "There are no labels to score on."
    score = f"AP is {report['AP']:.3f}."
    if gains[order[0]] < 0.0005:
        if report["AP"] > 0.9995:
            return f"{score} There is nothing to gain."
        return f"{score} No single correction helps: the tracks have several kinds of error at once."
    best, second = order[0], order[1]
    sentence = f"{score} Most would be gained by {_WISH[best]} (+{gains[best]:.3f}, {KINDS[best]})"
    if gains[second] >= 0.0005:
        sentence += f", then by {_WISH[second]} (+{gains[second]:.3f}, {KINDS[second]})"
    return sentence + "."


_WISH = {
    "identities": "keeping each object in one track",
    "classes": "the right class for each track",
    "masks": "better masks",
    "missed": "finding what is missed",
    "false": "dropping false tracks",
}


def format_diagnosis(report):
    """The report as a printed table, one row for all, each bucket and each category."""
    rows = [("all", report)]
    rows += [(f"{bucket['kind']}: {bucket['name']}", bucket) for bucket in report["buckets"]]
    rows += list(report["per_category"].items())
    width = max(len(name) for name, _ in rows)
    title = "dAP: what AP gains when one kind of error is corrected"
    lines = [title, f"{'':<{width}}  {'AP':>6}  " + "  ".join(f"{name:>10}" for name in CORRECTIONS)]
    for i, (name, row) in enumerate(rows):
        if i in (1, 1 + len(report["buckets"])):
            lines.append("")
        cells = "  ".join(f"{_text(row['gains'][key], '+.3f'):>10}" for key in CORRECTIONS)
        lines.append(f"{name:<{width}}  {_text(row['AP'], '.3f'):>6}  {cells}")
    return "\n".join([*lines, "", report["summary"]])


def _text(value, form):
    return "–" if value is None else format(value, form)


def _mean(values):
    """Mean of the values that are there, None if none are."""
    values = values[values > -1]
    return float(values.mean()) if len(values) else None


def _gains(before, after, value):
    start = value(before)
    if start is None:
        return dict.fromkeys(CORRECTIONS)
    return {name: value(after[name]) - start for name in CORRECTIONS}


def _row(before, after, value):
    return {"AP": value(before), "gains": _gains(before, after, value)}


def _num_labels(metrics, place, only=None):
    """Labels in the range of this place, of one category or of all."""
    matches = metrics.matches.items()
    return sum(int(found.num_labels[place]) for (_, c), found in matches if only is None or c == only)


def _notes(after):
    full = after["all"].stats["AP"]
    if full is None or full > 1 - 1e-9:
        return []
    return [f"all corrections together reach AP {full:.4f}, not 1: labels without any mask"]


def _calibration(metrics):
    """Of the tracks in each bin of scores, how many hit a label at IoU 0.5; ignored ones are left out."""
    scores, hits = [np.zeros(0)], [np.zeros(0, bool)]
    for found in metrics.matches.values():
        counted = ~found.ignored[0, 0]
        scores.append(found.scores[counted])
        hits.append(found.hit[0, 0][counted])
    scores, hits = np.concatenate(scores), np.concatenate(hits)
    bins = np.clip(np.digitize(scores, SCORE_BINS) - 1, 0, len(SCORE_BINS) - 2)
    rows = []
    for i, (low, high) in enumerate(pairwise(SCORE_BINS)):
        there = bins == i
        row = {"low": round(float(low), 1), "high": round(float(high), 1), "tracks": int(there.sum())}
        row["mean_score"] = float(scores[there].mean()) if there.any() else None
        row["right"] = float(hits[there].mean()) if there.any() else None
        rows.append(row)
    return rows
