"""The objects and tracks with the largest errors, each with its main error in a few words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from masktrack_jax.data.values import Id
from masktrack_jax.evaluation.diagnosis.comparisons import VideoComparison
from masktrack_jax.evaluation.diagnosis.corrections import (
    CORRECTIONS,
    AssignedObjects,
    assign_objects,
    best_tracks,
)
from masktrack_jax.evaluation.vis_ap import VisMetrics

_PURE = 0.9  # a track with this share of its assigned masks on one object does not mix objects


@dataclass(frozen=True)
class WorstCase:
    """An object or a track with a large error.

    Attributes:
      category: name of its category.
      reason: the error in a few words.
      labels: indices into the annotations of the labels to show.
      tracks: indices into the results of the tracks to show, the most important first.
      frames: the frames in which it is visible, at least one.
    """

    video_id: Id
    category: str
    reason: str
    labels: list[int]
    tracks: list[int]
    frames: list[int]


@dataclass(frozen=True)
class WorstObject(WorstCase):
    """A label, its highest track IoU with a prediction of its class, and its mean area."""

    iou: float
    area: float

    @property
    def title(self) -> str:
        """Category and IoU."""
        return f"{self.category}, IoU {self.iou:.2f}"


@dataclass(frozen=True)
class WorstTrack(WorstCase):
    """A predicted track and its score."""

    score: float

    @property
    def title(self) -> str:
        """Category and score."""
        return f"{self.category}, {self.score:.2f}"


Case = TypeVar("Case", bound=WorstCase)


def best_ious(
    metrics: VisMetrics, comparisons: Sequence[VideoComparison], categories: Mapping[Id, str]
) -> dict[Id, np.ndarray]:
    """Video id → (G,) float, the highest track IoU of each label with a prediction of its class."""
    best = {}
    for video in comparisons:
        values = np.zeros(len(video.label_places))
        for k, category_id in enumerate(categories):
            iou = metrics.ious.get((video.video_id, category_id))
            if iou is not None and iou.size:
                values[video.label_categories == k] = iou.max(0)
        best[video.video_id] = values
    return best


def worst_objects(
    comparisons: Sequence[VideoComparison],
    before: Mapping[Id, np.ndarray],
    after: Mapping[str, Mapping[Id, np.ndarray]],
    names: Sequence[str],
    count: int,
) -> list[WorstObject]:
    """The labels with the lowest IoU with any track of their class; among equals, larger ones first.

    Args:
      comparisons: the comparisons of all videos.
      before: `best_ious` of the predicted tracks.
      after: correction → `best_ious` after it.
      names: names of the categories, in order.
      count: number of labels to return, at most two per video.
    """
    found = []
    for video in comparisons:
        assigned = assign_objects(video).masks
        for g in np.flatnonzero(~video.labels.crowd & video.visible.any(1)).tolist():
            iou = before[video.video_id][g]
            gains = {name: after[name][video.video_id][g] - iou for name in CORRECTIONS}
            found.append(
                WorstObject(
                    video_id=video.video_id,
                    category=names[video.label_categories[g]],
                    reason=_error_of_object(video, g, assigned, gains, names),
                    labels=[int(video.label_places[g])],
                    tracks=_assigned_tracks(video, assigned == g),
                    frames=np.flatnonzero(video.visible[g]).tolist(),
                    iou=float(iou),
                    area=float(video.labels.mean_area[g]),
                )
            )
    return _at_most_two_per_video(sorted(found, key=lambda case: (case.iou, -case.area)), count)


def _assigned_tracks(video: VideoComparison, assigned: np.ndarray) -> list[int]:
    """Indices into the results of tracks with masks in `assigned` (N, T), by descending count × score."""
    weights = assigned.sum(1) * video.scores
    order = np.argsort(-weights, kind="stable")
    return [int(video.track_places[n]) for n in order if assigned[n].any()]


def _error_of_object(
    video: VideoComparison, g: int, assigned: np.ndarray, gains: Mapping[str, float], names: Sequence[str]
) -> str:
    """The error of label g whose correction raises the highest IoU of the label most."""
    frames, covered = int(video.visible[g].sum()), int((assigned == g).any(0).sum())
    if not covered:
        return "missed: no mask in any frame"
    if 2 * covered < frames:
        return f"missed: no mask in {frames - covered} of {frames} frames"
    best = max(gains, key=lambda name: gains[name])
    if gains[best] < 0.005:
        return "several errors at once; no single correction raises its IoU"
    tracks = np.flatnonzero((assigned == g).any(1))
    classes = sorted({names[video.categories[n]] for n in tracks})
    return {
        "identities": "association: its masks are spread over several tracks",
        "classes": f"classification: found, but as {', '.join(classes)}",
        "masks": "segmentation: found, but with poor masks",
        "missed": f"detection: no mask in {frames - covered} of {frames} frames",
        "false": "detection: its track also has masks where the object is not",
    }[best]


def worst_tracks(
    comparisons: Sequence[VideoComparison],
    metrics: VisMetrics,
    categories: Mapping[Id, str],
    names: Sequence[str],
    count: int,
) -> list[WorstTrack]:
    """The tracks with the highest scores among those that match no label at IoU 0.5.

    Args:
      comparisons: the comparisons of all videos.
      metrics: metrics of the same tracks.
      categories: id → name, in order.
      names: unique names of the categories, in the same order.
      count: number of tracks to return, at most two per video.
    """
    found = []
    for video in comparisons:
        objects = assign_objects(video)
        best = best_tracks(video, objects.main)
        for k, category_id in enumerate(categories):
            match = metrics.matches.get((video.video_id, category_id))
            rows = np.flatnonzero(video.categories == k)
            if match is None or not len(rows):
                continue
            for n in rows[match.order[~match.hit[0, 0] & ~match.ignored[0, 0]]]:
                frames = np.flatnonzero(video.masks[n] >= 0)
                if not len(frames):
                    continue
                labels = [int(video.label_places[g]) for g in np.unique(objects.masks[n]) if g >= 0]
                found.append(
                    WorstTrack(
                        video_id=video.video_id,
                        category=names[k],
                        reason=_error_of_track(video, n, objects, best, names),
                        labels=labels,
                        tracks=[int(video.track_places[n])],
                        frames=frames.tolist(),
                        score=float(video.scores[n]),
                    )
                )
    return _at_most_two_per_video(sorted(found, key=lambda case: -case.score), count)


def _error_of_track(
    video: VideoComparison, n: int, objects: AssignedObjects, best: np.ndarray, names: Sequence[str]
) -> str:
    """Why track n matches no label."""
    assigned, main = objects.masks[n], objects.main[n]
    if main < 0:
        return "false: it overlaps no object"
    if video.categories[n] != video.label_categories[main]:
        return f"classification: the object is a {names[video.label_categories[main]]}"
    on_main = assigned == main
    if on_main.sum() < _PURE * (assigned >= 0).sum():
        return f"association: its masks are spread over {len(np.unique(assigned[assigned >= 0]))} objects"
    if best[main] != n:
        also_in_best = on_main & (objects.masks[best[main]] == main)
        if 2 * also_in_best.sum() > on_main.sum():
            return "false: a duplicate of a better track"
        return "association: a fragment; another track covers more of the object"
    num_masks, missed = int((video.masks[n] >= 0).sum()), int(video.visible[main].sum() - on_main.sum())
    misplaced = num_masks - int(on_main.sum())
    if max(misplaced, missed) < 0.5 * num_masks:
        return "segmentation: its masks of the object are poor"
    if misplaced > missed:
        return f"false: {misplaced} of its {num_masks} masks are not on the object"
    return f"detection: it misses its object in {missed} frames"


def _at_most_two_per_video(cases: Sequence[Case], count: int) -> list[Case]:
    """The first `count` cases, at most two per video."""
    chosen: list[Case] = []
    taken: dict[Id, int] = {}
    for case in cases:
        if taken.get(case.video_id, 0) < 2:
            chosen.append(case)
            taken[case.video_id] = taken.get(case.video_id, 0) + 1
        if len(chosen) == count:
            break
    return chosen
