"""Identity metrics on masks: HOTA, CLEAR MOT and IDF1, with TrackEval 1.3.0's conventions.

Each entry of a results file is one track, so a track is an identity. Each category of each video is a
separate sequence; similarity is the mask IoU in one frame. Crowds count as ordinary objects, as in
TrackEval's YouTube-VIS adapter. Masks of different sizes have IoU 0 here (-1 in TrackEval).

HOTA: Luiten et al., IJCV 2021. CLEAR: Bernardin & Stiefelhagen 2008. IDF1: Ristani et al. 2016.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from masktrack_jax.evaluation.overlaps import ClassOverlap, Overlaps, compute_overlaps

HEADLINE = ("HOTA", "DetA", "AssA", "LocA", "IDF1", "MOTA", "IDSW", "Frag")
_ALPHAS = np.arange(0.05, 0.99, 0.05)
_MATCH_IOU = 0.5
_EPS = np.finfo(float).eps
_UNMATCHED = -1


class _Frame(NamedTuple):
    """A frame with both labels and predictions: indices of G objects and D tracks, and their IoU (G, D)."""

    objects: np.ndarray
    tracks: np.ndarray
    iou: np.ndarray


def evaluate_identity(
    ground_truth: dict[str, Any],
    results: list[dict[str, Any]],
    score_threshold: float = 0.5,
    names: tuple[str, str] = ("ground truth", "results"),
) -> dict[str, Any]:
    """`identity_metrics` of the contents of two files; see `compute_overlaps` for the arguments."""
    return identity_metrics(compute_overlaps(ground_truth, results, names), score_threshold)


def identity_metrics(overlaps: Overlaps, score_threshold: float = 0.5) -> dict[str, Any]:
    """HOTA, CLEAR MOT and IDF1 of tracks with at least `score_threshold`.

    Returns a dict:
      score_threshold: as given.
      pooled: metrics over all objects (TrackEval's `cls_comb_det_av`).
      class_average: mean over all categories of the file, counts summed (`cls_comb_cls_av`). A
        category without labels and predictions counts 0, as in TrackEval 1.3.0.
      per_category: category id → {"name", metrics}.
    Metrics are HOTA, DetA, AssA, DetRe, DetPr, AssRe, AssPr, LocA (means over 19 thresholds),
    MOTA, MOTP, IDF1, IDR, IDP (fractions; MOTA may be negative), and the counts IDSW, Frag, MT, PT, ML,
    objects, tracks. Ratios with an empty denominator are 0, LocA 1, as in TrackEval.
    """
    sums = {category_id: _no_counts() for category_id in overlaps.categories}
    for pair in overlaps.pairs:
        sums[pair.category_id] = _add(sums[pair.category_id], _count(pair, score_threshold))
    pooled = _no_counts()
    for counts in sums.values():
        pooled = _add(pooled, counts)
    finished = {category_id: _finish(counts) for category_id, counts in sums.items()}
    return {
        "score_threshold": float(score_threshold),
        "pooled": _finish(pooled),
        "class_average": _average(list(finished.values())),
        "per_category": {c: {"name": overlaps.categories[c]} | row for c, row in finished.items()},
    }


def _no_counts() -> dict[str, Any]:
    """Zeros for all counts summed over sequences; arrays have one value for each threshold of HOTA."""
    per_alpha = {name: np.zeros(len(_ALPHAS)) for name in ("tp", "loc", "ass", "ass_re", "ass_pr")}
    names = ("gt_dets", "dets", "objects", "tracks", "clr_tp", "clr_iou", "IDSW", "Frag", "MT", "PT", "idtp")
    return per_alpha | dict.fromkeys(names, 0)


def _add(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    return {name: a[name] + b[name] for name in a}


def _count(pair: ClassOverlap, score_threshold: float) -> dict[str, Any]:
    """Counts of one sequence."""
    rows = np.flatnonzero(pair.predicted.scores >= score_threshold)
    theirs = pair.labelled.areas[:, : pair.num_frames]
    ours = pair.predicted.areas[rows][:, : pair.num_frames]
    counts = _no_counts() | {
        "gt_dets": int(np.count_nonzero(theirs >= 0)),
        "dets": int(np.count_nonzero(ours >= 0)),
        "objects": int((theirs >= 0).any(1).sum()),
        "tracks": int((ours >= 0).any(1).sum()),
    }
    if not counts["gt_dets"] or not counts["dets"]:
        return counts
    frames = min(theirs.shape[1], ours.shape[1])
    common = np.maximum(pair.intersection[rows][..., :frames], 0).transpose(2, 1, 0)  # (T, G, D)
    union = theirs.T[:frames, :, None] + ours.T[:frames, None, :] - common
    iou = np.divide(common, union, out=np.zeros(union.shape), where=common > 0)
    gt_count, track_count = (theirs >= 0).sum(1)[:, None], (ours >= 0).sum(1)[None, :]
    matchable = []  # frames without a label or without a prediction hold no matches
    for t in range(frames):
        g, d = np.flatnonzero(theirs[:, t] >= 0), np.flatnonzero(ours[:, t] >= 0)
        if len(g) and len(d):
            matchable.append(_Frame(g, d, iou[t][g[:, None], d]))
    counts |= _hota(matchable, gt_count, track_count)
    counts |= _clear(matchable, gt_count[:, 0])
    counts["idtp"] = _identity_matches(iou)
    return counts


def _hota(matchable: Sequence[_Frame], gt_count: np.ndarray, track_count: np.ndarray) -> dict[str, Any]:
    """Sums of HOTA for each threshold: true positives, their IoU and their association scores.

    gt_count (G, 1) and track_count (1, D): number of frames of each object and track.
    """
    shape = (gt_count.shape[0], track_count.shape[1])
    # The matching in each frame prefers identities that agree over the whole sequence.
    agreement = np.zeros(shape)
    for g, d, iou in matchable:
        rivals = iou.sum(0)[None, :] + iou.sum(1)[:, None] - iou
        agreement[g[:, None], d] += np.divide(iou, rivals, out=np.zeros(iou.shape), where=rivals > _EPS)
    alignment = agreement / np.maximum(gt_count + track_count - agreement, _EPS)
    matches = np.zeros((len(_ALPHAS), *shape))
    located = np.zeros(len(_ALPHAS))
    for g, d, iou in matchable:
        r, c = _assign(-alignment[g[:, None], d] * iou)
        close = iou[r, c] >= _ALPHAS[:, None] - _EPS
        matches[:, g[r], d[c]] += close
        located += (close * iou[r, c]).sum(1)
    union = np.maximum(gt_count + track_count - matches, 1)
    return {
        "tp": matches.sum((1, 2)),
        "loc": located,
        "ass": (matches * matches / union).sum((1, 2)),
        "ass_re": (matches * matches / np.maximum(gt_count, 1)).sum((1, 2)),
        "ass_pr": (matches * matches / np.maximum(track_count, 1)).sum((1, 2)),
    }


def _clear(matchable: Sequence[_Frame], gt_count: np.ndarray) -> dict[str, Any]:
    """Counts of CLEAR: matching prefers the object's track of the previous frame, then maximises IoU.

    An identity switch is a match to a track other than the object's last match, after a gap of any length.
    The fragments of an object are the times its tracking starts again after a gap. Frames without a label or
    without a prediction are skipped and interrupt neither.
    """
    last, before = np.full(len(gt_count), _UNMATCHED), np.full(len(gt_count), _UNMATCHED)
    matched, starts = np.zeros(len(gt_count), int), np.zeros(len(gt_count), int)
    switches, total_iou = 0, 0.0
    for g, d, iou in matchable:
        gain = np.where(iou >= _MATCH_IOU - _EPS, 1000.0 * (d[None, :] == before[g][:, None]) + iou, 0)
        r, c = _assign(-gain)
        kept = gain[r, c] > 0
        r, c = r[kept], c[kept]
        objects, tracks = g[r], d[c]
        switches += int(np.count_nonzero((last[objects] != _UNMATCHED) & (last[objects] != tracks)))
        total_iou += float(iou[r, c].sum())
        matched[objects] += 1
        starts[objects] += before[objects] == _UNMATCHED
        last[objects] = tracks
        before[:] = _UNMATCHED
        before[objects] = tracks
    ratio = matched[gt_count > 0] / gt_count[gt_count > 0]
    mostly, partly = int(np.count_nonzero(ratio > 0.8)), int(np.count_nonzero(ratio >= 0.2))
    return {
        "clr_tp": int(matched.sum()),
        "clr_iou": total_iou,
        "IDSW": switches,
        "Frag": int(np.maximum(starts - 1, 0).sum()),
        "MT": mostly,
        "PT": partly - mostly,
    }


def _identity_matches(iou: np.ndarray) -> int:
    """IDTP: masks that match under the best one-to-one assignment of whole tracks, from IoU (T, G, D)."""
    agreeing = (iou >= _MATCH_IOU).sum(0)
    r, c = _assign(-agreeing)
    return int(agreeing[r, c].sum())


def _assign(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the one-to-one assignment with the least total `cost` (G, D)."""
    from scipy.optimize import linear_sum_assignment  # not at the top: see tracking.assignment.hungarian

    return linear_sum_assignment(cost)


def _finish(counts: dict[str, Any]) -> dict[str, Any]:
    """Metrics of summed counts."""
    tp, gt_dets, dets = counts["tp"], counts["gt_dets"], counts["dets"]
    det_a = tp / np.maximum(1, gt_dets + dets - tp)
    ass_a = counts["ass"] / np.maximum(1, tp)
    located = np.divide(counts["loc"], tp, out=np.ones(len(tp)), where=tp > 0)
    clr_tp, idtp, switches = counts["clr_tp"], counts["idtp"], counts["IDSW"]
    curves = {
        "HOTA": np.sqrt(det_a * ass_a),
        "DetA": det_a,
        "AssA": ass_a,
        "DetRe": tp / max(1, gt_dets),
        "DetPr": tp / max(1, dets),
        "AssRe": counts["ass_re"] / np.maximum(1, tp),
        "AssPr": counts["ass_pr"] / np.maximum(1, tp),
        "LocA": located,
    }
    return {name: float(curve.mean()) for name, curve in curves.items()} | {
        "MOTA": (2 * clr_tp - dets - switches) / max(1, gt_dets),
        "MOTP": counts["clr_iou"] / max(1, clr_tp),
        "IDF1": 2 * idtp / max(1, gt_dets + dets),
        "IDR": idtp / max(1, gt_dets),
        "IDP": idtp / max(1, dets),
        "IDSW": switches,
        "Frag": counts["Frag"],
        "MT": counts["MT"],
        "PT": counts["PT"],
        "ML": counts["objects"] - counts["MT"] - counts["PT"],
        "objects": counts["objects"],
        "tracks": counts["tracks"],
    }


def _average(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means of the ratios and sums of the counts over categories."""
    average: dict[str, Any] = {}
    for name, zero in _finish(_no_counts()).items():
        total = sum(row[name] for row in rows)
        average[name] = total if isinstance(zero, int) else float(total / max(1, len(rows)))
    return average
