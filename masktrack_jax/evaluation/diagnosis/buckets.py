"""Sorts of tracks for which AP is told apart: by size, length and occlusion.

Labels fall into buckets, and so do predictions that match no label, by their own masks, as they do in the
official area ranges:
  * size: the official ranges, 128² and 256² pixels of mean area; thirds of the labels' mean areas where
    all labels lie in one of them;
  * length: thirds of the labels by the number of frames in which they are seen;
  * occlusion: the share of frames, from the first sight to the last, in which the object is hidden: it has
    no mask or one below half of its own median area. Leaving the frame for a while counts as hidden.
"""

from dataclasses import dataclass

import numpy as np

from masktrack_jax.evaluation.vis_ap import AREA_RANGES

_HIDDEN = 0.5  # of the median area
_EDGE = 0.25  # between somewhat and much hidden


@dataclass(frozen=True)
class Bucket:
    """Tracks of one sort. `value` of a `Tracks` is (N,) float; in are those with low ≤ value ≤ high."""

    kind: str
    name: str
    value: object
    low: float
    high: float

    def holds(self, tracks):
        """(N,) bool, which of the tracks lie in the bucket."""
        value = self.value(tracks)
        return (value >= self.low) & (value <= self.high)


def make_buckets(scenes):
    """The `Bucket`s of a problem, only those that hold a label."""
    labels = [scene.labels for scene in scenes if len(scene.label_places)]
    areas = np.concatenate([_mean_area(tracks)[~tracks.crowd] for tracks in labels] or [[]])
    official = [
        Bucket("size", name, _mean_area, low, high)
        for name, (low, high) in zip(("small, ≤ 128²", "medium", "large, ≥ 256²"), AREA_RANGES[1:])
    ]
    filled = [bucket for bucket in official if ((areas >= bucket.low) & (areas <= bucket.high)).any()]
    if len(filled) < 2:
        filled = _thirds("size", "pixels", _mean_area, areas)
    lengths = np.concatenate([_frames_seen(tracks)[~tracks.crowd] for tracks in labels] or [[]])
    hidden = [
        Bucket("occlusion", "never hidden", hidden_share, -np.inf, 0),
        Bucket("occlusion", f"hidden up to {_EDGE:.0%} of the time", hidden_share, 1e-9, _EDGE),
        Bucket("occlusion", "hidden more", hidden_share, np.nextafter(_EDGE, 1), np.inf),
    ]
    hidden = [b for b in hidden if any((b.holds(tracks) & ~tracks.crowd).any() for tracks in labels)]
    return filled + _thirds("length", "frames", _frames_seen, lengths) + hidden


def _thirds(kind, unit, value, values):
    """Up to three buckets, each of about a third of the `values`, with whole numbers for edges."""
    if not len(values):
        return []
    most = np.floor(values.max())
    # Where most labels have the largest value (whole videos), they are one bucket and the rest another.
    inner = np.minimum(np.floor(np.quantile(values, [1 / 3, 2 / 3], method="lower")), most - 1)
    edges = np.unique([*inner, most])
    buckets, low = [], -np.inf
    for i, edge in enumerate(edges):
        last = i == len(edges) - 1
        # A value between two whole numbers belongs to the lower one.
        high = np.inf if last else np.nextafter(edge + 1, edge)
        if ((values >= low) & (values <= high)).any():
            start = max(int(np.floor(values.min())), 0) if low == -np.inf else int(low)
            end = int(values.max()) if last else int(edge)
            span = f"{start}" if start == end else f"{start}–{end}"
            buckets.append(Bucket(kind, f"{span} {unit}", value, low, high))
        low = edge + 1
    return buckets


def _mean_area(tracks):
    return tracks.mean_area


def _frames_seen(tracks):
    return (tracks.areas > 0).sum(1)


def hidden_share(tracks):
    """(N,) float, share of hidden frames from a track's first sight to its last; 0 if it is never seen."""
    areas = tracks.areas
    seen = areas > 0
    if not seen.any():
        return np.zeros(len(areas))
    # The median of what is seen: unseen frames sort to the end.
    ordered, count = np.sort(np.where(seen, areas, np.inf), axis=1), np.maximum(seen.sum(1), 1)
    middle = np.stack([(count - 1) // 2, count // 2], axis=1)
    median = np.take_along_axis(ordered, middle, axis=1).mean(1)
    hidden = ~seen | (areas < _HIDDEN * median[:, None])
    started = np.logical_or.accumulate(seen, axis=1)
    ended = np.logical_or.accumulate(seen[:, ::-1], axis=1)[:, ::-1]
    between = started & ended
    return (hidden & between).sum(1) / np.maximum(between.sum(1), 1)
