"""Predicted tracks and labels of a video, all categories together, and the overlap of their masks.

A track is a list of masks. One table holds the overlap of every mask with every label
(`VideoComparison.source_intersection`). New tracks made of predicted or true masks can therefore be compared
with the labels without reading a mask again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from masktrack_jax.data.labels import LabelsFile
from masktrack_jax.data.values import Id
from masktrack_jax.evaluation.faults import Refusals
from masktrack_jax.evaluation.overlaps import ClassOverlap, Overlaps, Tracks, overlap_tracks
from masktrack_jax.evaluation.tracks import Track

ABSENT = -1  # index where there is no mask, no object or no track
ANY_CATEGORY = 0  # category id of tracks and labels that are compared across categories


@dataclass(frozen=True)
class VideoComparison:
    """N tracks and G labels of a video with T frames, all categories together.

    The masks of the tracks come from S source tracks: the D tracks of the results file, then the G labels.

    Attributes:
      source_areas: (S, T) int64, area of each mask of the source tracks in pixels, -1 where there is no mask.
      source_intersection: (S, G, T) int64, pixels that masks of source tracks and labels have in common, -1
        where their sizes differ.
      labels: `Tracks` of the labels.
      label_categories: (G,) int, indices into the list of categories.
      label_places: (G,) int, indices into the annotations of the file.
      track_places: (D,) int, indices into the list of tracks.
      masks: (N, T) int, the source track of each mask of a track, `ABSENT` where there is no mask.
      scores, categories, lengths: (N,) score, index of the category and length of each track, in the order
        of the file.
    """

    video_id: Id
    source_areas: np.ndarray
    source_intersection: np.ndarray
    labels: Tracks
    label_categories: np.ndarray
    label_places: np.ndarray
    track_places: np.ndarray
    masks: np.ndarray
    scores: np.ndarray
    categories: np.ndarray
    lengths: np.ndarray

    @cached_property
    def areas(self) -> np.ndarray:
        """(N, T) int64, area of each mask of the tracks in pixels, -1 where there is no mask."""
        frames = np.arange(self.masks.shape[1])
        return np.where(self.masks >= 0, self.source_areas[self.masks, frames], -1)

    @cached_property
    def intersection(self) -> np.ndarray:
        """(N, G, T) int64, pixels that tracks and labels have in common, as `ClassOverlap.intersection`."""
        frames = np.arange(self.masks.shape[1])
        present = self.masks[..., None] >= 0
        return np.where(present, self.source_intersection[self.masks, :, frames], 0).transpose(0, 2, 1)

    @property
    def visible(self) -> np.ndarray:
        """(G, T) bool, whether a labelled object has a mask in a frame."""
        return self.source_areas[len(self.track_places) :] > 0

    @property
    def label_sources(self) -> np.ndarray:
        """(G,) int, the source track of each label."""
        return len(self.track_places) + np.arange(len(self.label_places))


def read_comparisons(
    labels: LabelsFile, tracks: Sequence[Track], progress: bool = False
) -> tuple[dict[Id, str], list[VideoComparison]]:
    """Categories, id → name sorted by id, and the comparison of each video, sorted by video id.

    Arguments are those of `overlap_tracks`. Call that function first, because it checks the masks of tracks.
    """
    categories = {c["id"]: c["name"] for c in sorted(labels["categories"], key=lambda c: c["id"])}
    index = {category_id: k for k, category_id in enumerate(categories)}
    annotations = labels["annotations"]
    # All records get one category, and the labels are also added as predictions: the overlap between labels
    # is needed where a true mask replaces a predicted one.
    content = {
        "videos": labels["videos"],
        "categories": [{"id": ANY_CATEGORY, "name": "any"}],
        "annotations": [label | {"category_id": ANY_CATEGORY} for label in annotations],
    }
    merged = LabelsFile(content, labels.pixels, labels.originals, [])
    sources = [track._replace(category_id=ANY_CATEGORY) for track in tracks]
    sources += [
        Track(place, label["video_id"], ANY_CATEGORY, 1.0, label["segmentations"])
        for place, label in enumerate(annotations)
    ]
    overlaps = overlap_tracks(merged, sources, Refusals("results"), progress)
    track_places = _places_by_video([track.video_id for track in tracks])
    label_places = _places_by_video([label["video_id"] for label in annotations])
    comparisons = []
    for pair in overlaps.pairs:
        predicted, labelled = (places.get(pair.video_id, []) for places in (track_places, label_places))
        comparisons.append(
            _compare(
                pair,
                np.array(predicted, int),
                np.array(labelled, int),
                np.array([index[tracks[i].category_id] for i in predicted], int),
                np.array([index[annotations[i]["category_id"]] for i in labelled], int),
            )
        )
    return categories, comparisons


def _places_by_video(video_ids: Sequence[Id]) -> dict[Id, list[int]]:
    """Group the places of records by their video ids."""
    by_video: dict[Id, list[int]] = {}
    for place, video_id in enumerate(video_ids):
        by_video.setdefault(video_id, []).append(place)
    return by_video


def _compare(
    pair: ClassOverlap,
    track_places: np.ndarray,
    label_places: np.ndarray,
    categories: np.ndarray,
    label_categories: np.ndarray,
) -> VideoComparison:
    count, frames = len(track_places), pair.predicted.areas.shape[1]
    intersection = np.zeros((*pair.intersection.shape[:2], frames), np.int64)
    intersection[..., : pair.intersection.shape[2]] = pair.intersection
    rows = np.arange(count)[:, None]
    return VideoComparison(
        video_id=pair.video_id,
        source_areas=pair.predicted.areas,
        source_intersection=intersection,
        labels=pair.labelled,
        label_categories=label_categories,
        label_places=label_places,
        track_places=track_places,
        masks=np.where(pair.predicted.areas[:count] >= 0, rows, ABSENT),
        scores=pair.predicted.scores[:count],
        categories=categories,
        lengths=pair.predicted.lengths[:count],
    )


def by_category(comparisons: Sequence[VideoComparison], categories: dict[Id, str]) -> Overlaps:
    """Split the comparisons by category again, for the evaluators."""
    pairs = []
    for video in comparisons:
        for k, category_id in enumerate(categories):
            rows = np.flatnonzero(video.categories == k)
            columns = np.flatnonzero(video.label_categories == k)
            if len(rows) or len(columns):
                pairs.append(class_overlap(video, category_id, rows, columns))
    return Overlaps(categories, pairs)


def class_overlap(
    video: VideoComparison, category_id: Id, rows: np.ndarray, columns: np.ndarray
) -> ClassOverlap:
    """Overlap of the tracks with indices `rows` (n,) and the labels with indices `columns` (g,)."""
    labels, areas = video.labels, video.areas[rows]
    present = areas > 0
    predicted = Tracks(
        scores=video.scores[rows],
        crowd=np.zeros(len(rows), bool),
        mean_area=np.where(present, areas, 0).sum(1) / np.maximum(present.sum(1), 1),
        lengths=video.lengths[rows],
        areas=areas,
    )
    labelled = Tracks(
        labels.scores[columns],
        labels.crowd[columns],
        labels.mean_area[columns],
        labels.lengths[columns],
        video.source_areas[video.label_sources[columns]],
    )
    intersection = video.intersection[rows][:, columns]
    return ClassOverlap(video.video_id, category_id, video.masks.shape[1], predicted, labelled, intersection)
