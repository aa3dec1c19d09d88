"""Buckets of tracks, by size, length and occlusion, for which AP is reported separately.

Labels are put into buckets. So are predictions that match no label, by their own masks, as in the official
area ranges:
  * size: the official ranges, with limits at 128² and 256² pixels of mean area; terciles of the labels' mean
    areas if all labels lie in one of the ranges;
  * length: terciles of the labels by the number of frames in which they are visible;
  * occlusion: the share of hidden frames between the first and the last visible one. An object is hidden in a
    frame if it has no mask, or one smaller than half of its median area. An object outside the frame counts
    as hidden.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from masktrack_jax.evaluation.diagnosis.comparisons import VideoComparison
from masktrack_jax.evaluation.overlaps import Tracks
from masktrack_jax.evaluation.vis_ap import AREA_RANGES

_HIDDEN = 0.5  # an object with less than this share of its median area is hidden
_LITTLE = 0.25  # largest share of hidden frames of the middle bucket


@dataclass(frozen=True)
class Bucket:
    """Tracks with low ≤ value ≤ high; `value` maps N tracks to (N,) floats."""

    kind: str
    name: str
    value: Callable[[Tracks], np.ndarray]
    low: float
    high: float

    def holds(self, tracks: Tracks) -> np.ndarray:
        """(N,) bool, whether each of the tracks lies in the bucket."""
        value = self.value(tracks)
        return (value >= self.low) & (value <= self.high)


def make_buckets(comparisons: Sequence[VideoComparison]) -> list[Bucket]:
    """The buckets that hold a label."""
    labels = [video.labels for video in comparisons if len(video.label_places)]
    areas = np.concatenate([_mean_area(tracks)[~tracks.crowd] for tracks in labels] or [[]])
    official = [
        Bucket("size", name, _mean_area, low, high)
        for name, (low, high) in zip(("small, ≤ 128²", "medium", "large, ≥ 256²"), AREA_RANGES[1:])
    ]
    filled = [bucket for bucket in official if ((areas >= bucket.low) & (areas <= bucket.high)).any()]
    if len(filled) < 2:
        filled = _terciles("size", "pixels", _mean_area, areas)
    lengths = np.concatenate([_num_visible(tracks)[~tracks.crowd] for tracks in labels] or [[]])
    hidden = [
        Bucket("occlusion", "never hidden", hidden_share, -np.inf, 0),
        Bucket("occlusion", f"hidden up to {_LITTLE:.0%} of the time", hidden_share, 1e-9, _LITTLE),
        Bucket("occlusion", "hidden more", hidden_share, float(np.nextafter(_LITTLE, 1)), np.inf),
    ]
    hidden = [b for b in hidden if any((b.holds(tracks) & ~tracks.crowd).any() for tracks in labels)]
    return filled + _terciles("length", "frames", _num_visible, lengths) + hidden


def _terciles(
    kind: str, unit: str, value: Callable[[Tracks], np.ndarray], values: np.ndarray
) -> list[Bucket]:
    """Up to three buckets with about a third of the `values` each and integer limits."""
    if not len(values):
        return []
    most = np.floor(values.max())
    # If most labels have the largest value (whole videos), they form one bucket and the others another.
    inner = np.minimum(np.floor(np.quantile(values, [1 / 3, 2 / 3], method="lower")), most - 1)
    edges = np.unique([*inner, most])
    buckets: list[Bucket] = []
    low = -np.inf
    for i, edge in enumerate(edges):
        last = i == len(edges) - 1
        # A value between two integers belongs to the lower one.
        high = np.inf if last else float(np.nextafter(edge + 1, edge))
        if ((values >= low) & (values <= high)).any():
            start = max(int(np.floor(values.min())), 0) if low == -np.inf else int(low)
            end = int(values.max()) if last else int(edge)
            span = f"{start}" if start == end else f"{start}–{end}"
            buckets.append(Bucket(kind, f"{span} {unit}", value, low, high))
        low = float(edge) + 1
    return buckets


def _mean_area(tracks: Tracks) -> np.ndarray:
    return tracks.mean_area


def _num_visible(tracks: Tracks) -> np.ndarray:
    return (tracks.areas > 0).sum(1)


def hidden_share(tracks: Tracks) -> np.ndarray:
    """(N,) float, share of hidden frames from the first to the last visible one, 0 if there is none."""
    areas = tracks.areas
    visible = areas > 0
    if not visible.any():
        return np.zeros(len(areas))
    # The median over visible frames: all others sort to the end.
    ordered, count = np.sort(np.where(visible, areas, np.inf), axis=1), np.maximum(visible.sum(1), 1)
    middle = np.stack([(count - 1) // 2, count // 2], axis=1)
    median = np.take_along_axis(ordered, middle, axis=1).mean(1)
    hidden = ~visible | (areas < _HIDDEN * median[:, None])
    started = np.logical_or.accumulate(visible, axis=1)
    not_ended = np.logical_or.accumulate(visible[:, ::-1], axis=1)[:, ::-1]
    between = started & not_ended
    return (hidden & between).sum(1) / np.maximum(between.sum(1), 1)
