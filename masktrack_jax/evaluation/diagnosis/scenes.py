"""Videos as diagnosis sees them: the predicted tracks and the labels of all categories, and what they share.

A track is a list of the masks it is made of. What each mask shares with each label is in one table
(`Scene.shared`), so that tracks put together anew, of predicted or true masks, are compared without reading a
mask again.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from masktrack_jax.evaluation.overlaps import ClassOverlap, Overlaps, Tracks, compute_overlaps

NOTHING = -1


@dataclass(frozen=True)
class Scene:
    """One video, all categories together: N tracks made of S masks a frame, G labels, T frames.

    Attributes:
      source_areas: (S, T) int64, pixels of each mask, -1 where there is none: first the D tracks of the
        results file, then the G labels.
      shared: (S, G, T) int64, common pixels of mask and label, -1 where their sizes differ.
      labels: `Tracks` of the G labels; label_categories: (G,) int, places in the list of categories.
      label_places: (G,) int, places in the file's annotations; track_places: (D,) int, in the results.
      masks: (N, T) int, the row of `source_areas` a track has its mask from, -1 where it has none.
      scores, categories, lengths: (N,), as in `Tracks`; tracks are in the order of the file.
    """

    video_id: object
    source_areas: np.ndarray
    shared: np.ndarray
    labels: Tracks
    label_categories: np.ndarray
    label_places: np.ndarray
    track_places: np.ndarray
    masks: np.ndarray
    scores: np.ndarray
    categories: np.ndarray
    lengths: np.ndarray

    @cached_property
    def areas(self):
        """(N, T) int64, pixels of the tracks' masks, -1 where there is none."""
        frames = np.arange(self.masks.shape[1])
        return np.where(self.masks >= 0, self.source_areas[self.masks, frames], -1)

    @cached_property
    def common(self):
        """(N, G, T) int64, common pixels of tracks and labels, as `ClassOverlap.intersection`."""
        frames = np.arange(self.masks.shape[1])
        there = self.masks[..., None] >= 0
        return np.where(there, self.shared[self.masks, :, frames], 0).transpose(0, 2, 1)

    @property
    def visible(self):
        """(G, T) bool, where the labelled objects are seen."""
        return self.source_areas[len(self.track_places) :] > 0

    @property
    def label_rows(self):
        """(G,) int, the rows of `source_areas` that hold the labels' masks."""
        return len(self.track_places) + np.arange(len(self.label_places))


def read_scenes(ground_truth, results, names=("ground truth", "results"), progress=False):
    """(categories id → name by rising id, list of `Scene` by rising video id) of what was predicted.

    Takes and raises what `compute_overlaps` does; call that first, its messages name the right record.
    Predictions of categories the file does not know are left out.
    """
    categories = {c["id"]: str(c.get("name", c["id"])) for c in ground_truth["categories"]}
    categories = {key: categories[key] for key in sorted(categories)}
    place = {category_id: k for k, category_id in enumerate(categories)}
    labels = ground_truth["annotations"]
    known = [i for i, track in enumerate(results) if track["category_id"] in place]
    # One class for all, and the labels once more as predictions: how they overlap each other is needed
    # wherever a true mask stands in for a predicted one.
    merged = {
        "videos": ground_truth["videos"],
        "categories": [{"id": 0}],
        "annotations": [label | {"category_id": 0} for label in labels],
    }
    tracks = [results[i] | {"category_id": 0} for i in known]
    tracks += [
        {"video_id": a["video_id"], "category_id": 0, "score": 1.0, "segmentations": a["segmentations"]}
        for a in labels
    ]
    overlaps = compute_overlaps(merged, tracks, names, progress)
    track_places, label_places = {}, {}
    for i in known:
        track_places.setdefault(results[i]["video_id"], []).append(i)
    for i, label in enumerate(labels):
        label_places.setdefault(label["video_id"], []).append(i)
    scenes = []
    for pair in overlaps.pairs:
        tracks_here = track_places.get(pair.video_id, [])
        labels_here = label_places.get(pair.video_id, [])
        scenes.append(
            _scene(
                pair,
                np.array(tracks_here, int),
                np.array(labels_here, int),
                np.array([place[results[i]["category_id"]] for i in tracks_here], int),
                np.array([place[labels[i]["category_id"]] for i in labels_here], int),
            )
        )
    return categories, scenes


def _scene(pair, track_places, label_places, categories, label_categories):
    count, frames = len(track_places), pair.predicted.areas.shape[1]
    shared = np.zeros((*pair.intersection.shape[:2], frames), np.int64)
    shared[..., : pair.intersection.shape[2]] = pair.intersection
    rows = np.arange(count)[:, None]
    return Scene(
        video_id=pair.video_id,
        source_areas=pair.predicted.areas,
        shared=shared,
        labels=pair.labelled,
        label_categories=label_categories,
        label_places=label_places,
        track_places=track_places,
        masks=np.where(pair.predicted.areas[:count] >= 0, rows, NOTHING),
        scores=pair.predicted.scores[:count],
        categories=categories,
        lengths=pair.predicted.lengths[:count],
    )


def by_category(scenes, categories):
    """The `Overlaps` of scenes, category by category again, as the evaluators take them."""
    pairs = []
    for scene in scenes:
        for k, category_id in enumerate(categories):
            rows = np.flatnonzero(scene.categories == k)
            columns = np.flatnonzero(scene.label_categories == k)
            if len(rows) or len(columns):
                pairs.append(pair_of(scene, category_id, rows, columns))
    return Overlaps(categories, pairs)


def pair_of(scene, category_id, rows, columns):
    """The `ClassOverlap` of the tracks `rows` (n,) and the labels `columns` (g,) of a scene."""
    labels, areas = scene.labels, scene.areas[rows]
    seen = areas > 0
    predicted = Tracks(
        scores=scene.scores[rows],
        crowd=np.zeros(len(rows), bool),
        mean_area=np.where(seen, areas, 0).sum(1) / np.maximum(seen.sum(1), 1),
        lengths=scene.lengths[rows],
        areas=areas,
    )
    labelled = Tracks(
        labels.scores[columns],
        labels.crowd[columns],
        labels.mean_area[columns],
        labels.lengths[columns],
        scene.source_areas[scene.label_rows[columns]],
    )
    shared = scene.common[rows][:, columns]
    return ClassOverlap(scene.video_id, category_id, scene.masks.shape[1], predicted, labelled, shared)
