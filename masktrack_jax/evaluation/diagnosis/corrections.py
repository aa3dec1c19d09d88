"""Corrections of predicted tracks; each one uses the ground truth to remove one kind of error.

A corrected track consists of existing masks, predicted or true. The method follows TIDE (Bolya et al., ECCV
2020), extended from boxes in an image to tracks in a video. As in identity metrics (TrackEval), the masks of
a track are examined frame by frame.

Terms:
  * The *assigned object* of a mask is the object of any class with which it has the highest IoU in its frame.
    A mask whose highest IoU is below `BACKGROUND_IOU` = 0.1 is a *background mask* and has no assigned
    object. 0.1 is TIDE's threshold between poor localisation and background; with 0.5, a poor mask would
    count as a false mask and a missed object.
  * A *background track* is a track whose masks have a mean IoU below `BACKGROUND_IOU` with their assigned
    objects, where a background mask counts as 0. It hardly overlaps any object, so all its masks are treated
    as background masks.
  * The *main object* of a track is the object with the largest sum of IoU over the masks assigned to it.
  * The *best track* of an object is one of the tracks whose main object it is: tracks of its class come
    first, then the highest spatio-temporal IoU, then the higher score.
A crowd may be an assigned object and a main object. It has no best track, its tracks are not merged, and it
is never missed.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from masktrack_jax.evaluation.diagnosis.comparisons import (
    ABSENT,
    ANY_CATEGORY,
    VideoComparison,
    class_overlap,
)
from masktrack_jax.evaluation.vis_ap import track_iou

BACKGROUND_IOU = 0.1


class AssignedObjects(NamedTuple):
    """Objects assigned to the masks and tracks of a video, as indices of its labels.

    masks: (N, T) int, the assigned object of each mask, `ABSENT` for background masks and absent masks.
    main: (N,) int, the main object of each track, `ABSENT` for background tracks.
    """

    masks: np.ndarray
    main: np.ndarray


class CorrectedTrack(NamedTuple):
    """A row of `VideoComparison.masks`, and the track's score, index of its category and length."""

    masks: np.ndarray
    score: float
    category: int
    length: int


def assign_objects(video: VideoComparison) -> AssignedObjects:
    """The assigned object of every mask and the main object of every track."""
    count, num_labels, frames = len(video.masks), len(video.label_places), video.masks.shape[1]
    if not num_labels:
        return AssignedObjects(np.full((count, frames), ABSENT), np.full(count, ABSENT))
    common = np.maximum(video.intersection, 0)
    theirs = np.maximum(video.source_areas[video.label_sources], 0)
    union = np.maximum(video.areas, 0)[:, None] + theirs[None] - common
    iou = np.divide(common, union, out=np.zeros(union.shape), where=union > 0)
    assigned = np.where(iou.max(1) >= BACKGROUND_IOU, iou.argmax(1), ABSENT)
    total_iou = np.where(assigned[:, None] == np.arange(num_labels)[:, None], iou, 0).sum(-1)
    num_masks = (video.masks >= 0).sum(1)
    found = (total_iou.sum(1) > 0) & (total_iou.sum(1) >= BACKGROUND_IOU * num_masks)
    return AssignedObjects(
        masks=np.where(found[:, None], assigned, ABSENT),
        main=np.where(found, total_iou.argmax(1), ABSENT),
    )


def best_tracks(video: VideoComparison, main: np.ndarray) -> np.ndarray:
    """(G,) int, the best track of every label; `ABSENT` for crowds and objects that no track has as main."""
    tracks, labels = np.arange(len(video.masks)), np.arange(len(video.label_places))
    iou = track_iou(class_overlap(video, ANY_CATEGORY, tracks, labels))
    best = np.full(len(labels), ABSENT)
    for g in np.flatnonzero(~video.labels.crowd):
        candidates = np.flatnonzero(main == g)
        if len(candidates):
            right_class = video.categories[candidates] == video.label_categories[g]
            best[g] = candidates[np.lexsort((video.scores[candidates], iou[candidates, g], right_class))[-1]]
    return best


def correct_identities(video: VideoComparison) -> VideoComparison:
    """Correct association: all masks assigned to an object go to one track.

    Split tracks are merged and mixed tracks are cut. No mask is added, removed or changed. If several masks
    of a frame are assigned to one object, the merged track takes one of them: from tracks of the object's
    class first, then from the track with the highest score. The others stay in their tracks, because they are
    false detections and not identity switches. A background mask moves with the masks assigned to its track's
    main object, unless the merged track has another mask in that frame. The score of a merged track is the
    mean score of its masks. Its class is the one with the most votes; each mask votes with its track's score.
    """
    assigned, main = assign_objects(video)
    remaining = video.masks.copy()
    tracks: list[tuple[int, CorrectedTrack]] = []  # (place in the order of the file, track)
    for g in np.flatnonzero(~video.labels.crowd).tolist():
        sources = np.flatnonzero((assigned == g).any(1))
        right_class = video.categories[sources] == video.label_categories[g]
        sources = sources[np.lexsort((-video.scores[sources], ~right_class))]
        masks, taken = np.full(remaining.shape[1], ABSENT), {}
        for n in sources.tolist():
            frames = (assigned[n] == g) & (masks < 0)
            if frames.any():
                masks[frames], remaining[n, frames] = remaining[n, frames], ABSENT
                taken[n] = int(np.count_nonzero(frames))
        for n in taken:
            if main[n] == g:
                background = (remaining[n] >= 0) & (assigned[n] < 0) & (masks < 0)
                masks[background], remaining[n, background] = remaining[n, background], ABSENT
        if taken:
            largest = max(taken, key=lambda n: taken[n])
            tracks.append((largest, _merged(video, masks, taken)))
    for n, masks in enumerate(remaining):
        if (masks >= 0).any() or not (video.masks[n] >= 0).any():
            unchanged = CorrectedTrack(masks, video.scores[n], video.categories[n], video.lengths[n])
            tracks.append((n, unchanged))
    tracks.sort(key=lambda placed: placed[0])
    return _with_tracks(video, [track for _, track in tracks])


def _merged(video: VideoComparison, masks: np.ndarray, taken: dict[int, int]) -> CorrectedTrack:
    """The track of these `masks`, to which each track n contributed `taken[n]` assigned masks."""
    sources, counts = np.array(list(taken)), np.array(list(taken.values()))
    scores = video.scores[sources]
    # Clipped to the range of the scores, so that rounding does not reorder equal scores.
    score = np.clip((scores * counts).sum() / counts.sum(), scores.min(), scores.max())
    votes: dict[int, float] = {}
    for category, weight in zip(video.categories[sources], scores * counts):
        votes[category] = votes.get(category, 0) + weight
    category = max(votes, key=lambda category: votes[category])
    return CorrectedTrack(masks, score, category, video.lengths[sources].max())


def correct_classes(video: VideoComparison) -> VideoComparison:
    """Correct classification: each track gets the class of its main object; background tracks keep theirs."""
    main = assign_objects(video).main
    right = video.label_categories[main] if len(video.label_categories) else video.categories
    return replace(video, categories=np.where(main >= 0, right, video.categories))


def correct_masks(video: VideoComparison) -> VideoComparison:
    """Correct segmentation: the true mask of its assigned object replaces every mask.

    Background masks and absent masks stay as they are, and tracks that mix objects still do.
    """
    assigned = assign_objects(video).masks
    return replace(video, masks=np.where(assigned >= 0, len(video.track_places) + assigned, video.masks))


def add_missed(video: VideoComparison) -> VideoComparison:
    """Correct missed detections: objects, and frames of objects, without an assigned mask.

    An object becomes a perfect prediction with score 1 if it is no track's main object and has assigned masks
    in less than half of its visible frames. The best track of an object gets the true mask in frames where
    the object is visible, has no assigned mask, and the track has no mask.
    """
    assigned, main = assign_objects(video)
    best = best_tracks(video, main)
    masks, lengths, added = video.masks.copy(), video.lengths.copy(), []
    frames = np.arange(masks.shape[1])
    for g in np.flatnonzero(~video.labels.crowd & video.visible.any(1)):
        missed = video.visible[g] & ~(assigned == g).any(0)
        source = video.label_sources[g]
        if best[g] < 0 and 2 * missed.sum() > video.visible[g].sum():
            true_masks = np.where(video.visible[g], source, ABSENT)
            length = video.labels.lengths[g]
            added.append(CorrectedTrack(true_masks, 1.0, video.label_categories[g], length))
        elif best[g] >= 0:
            n = best[g]
            filled = missed & (masks[n] < 0)
            masks[n, filled] = source
            # The overlap would leave out frames after the end of a shorter track.
            lengths[n] = max(lengths[n], frames[filled].max(initial=-1) + 1)
    tracks = [CorrectedTrack(*row) for row in zip(masks, video.scores, video.categories, lengths)]
    return _with_tracks(video, tracks + added)


def remove_false(video: VideoComparison) -> VideoComparison:
    """Correct false detections: background masks, background tracks and duplicate tracks of an object.

    A track is a duplicate if, for more than half of its masks with an assigned object, the best track of that
    object is another track and has a mask assigned to the object in the same frame.
    """
    assigned, main = assign_objects(video)
    best = best_tracks(video, main)
    duplicate = np.zeros(assigned.shape, bool)
    for g in np.flatnonzero(best >= 0):
        covered = assigned[best[g]] == g
        duplicate |= (assigned == g) & covered
        duplicate[best[g], covered] = False
    num_assigned = (assigned >= 0).sum(1)
    kept = (num_assigned > 0) & (2 * duplicate.sum(1) <= num_assigned)
    return _keep(replace(video, masks=np.where(assigned >= 0, video.masks, ABSENT)), kept)


def correct_all(video: VideoComparison) -> VideoComparison:
    """Apply all five corrections. The result equals the labels: AP is 1, unless a label has no mask at all.

    This checks that the five corrections cover every error. Tracks whose main object is a crowd are removed,
    since no correction completes them.
    """
    for correct in (correct_identities, correct_classes, correct_masks, remove_false, add_missed):
        video = correct(video)
    main = assign_objects(video).main
    return _keep(video, ~np.isin(main, np.flatnonzero(video.labels.crowd)))


CORRECTIONS: dict[str, Callable[[VideoComparison], VideoComparison]] = {
    "identities": correct_identities,
    "classes": correct_classes,
    "masks": correct_masks,
    "missed": add_missed,
    "false": remove_false,
}


def _keep(video: VideoComparison, kept: np.ndarray) -> VideoComparison:
    """The comparison with only the tracks for which `kept` (N,) bool is true."""
    return replace(
        video,
        masks=video.masks[kept],
        scores=video.scores[kept],
        categories=video.categories[kept],
        lengths=video.lengths[kept],
    )


def _with_tracks(video: VideoComparison, tracks: Sequence[CorrectedTrack]) -> VideoComparison:
    """Replace the tracks of the comparison."""
    masks = np.array([track.masks for track in tracks], int)
    return replace(
        video,
        masks=masks.reshape(len(tracks), video.masks.shape[1]),
        scores=np.array([track.score for track in tracks], float),
        categories=np.array([track.category for track in tracks], int),
        lengths=np.array([track.length for track in tracks], int),
    )
