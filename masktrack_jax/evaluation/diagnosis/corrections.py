"""One kind of error taken away: predicted tracks with the ground truth put in for that error alone.

A corrected track is put together frame by frame from masks that are already there, predicted or true. The
thought is TIDE's (Bolya et al., ECCV 2020), carried from boxes of an image to tracks of a video; that a track
is taken apart frame by frame is as in identity metrics (TrackEval).

Words used below:
  * A mask *lies on* the object with which it has the highest IoU in its frame, if that is at least
    `LIES_ON` = 0.1, whatever the classes. 0.1 is TIDE's limit between a poor mask and one of nothing: with
    0.5 a poor mask would be called a false one and a missed object.
  * A *track of nothing* is one whose masks, those of nothing counted as 0, have a mean IoU below
    `LIES_ON` with what they lie on: where it touches an object it only brushes it, so that all its masks are
    taken to lie on nothing.
  * A track's *home* is the object on which it lies most: the largest sum of IoU over its frames.
  * An object's *keeper* is the best of the tracks at home there: those of its class first, then the
    highest spatio-temporal IoU, then the higher score.
Crowds are lain on and are homes, but are neither put together, kept nor missed.
"""

from dataclasses import replace

import numpy as np

from masktrack_jax.evaluation.diagnosis.scenes import NOTHING, pair_of
from masktrack_jax.evaluation.vis_ap import track_iou

LIES_ON = 0.1


def lies_on(scene):
    """Where every mask lies and where every track is at home.

    Returns:
      on: (N, T) int, the label each mask lies on, -1 for a mask of nothing, for all masks of a track of
        nothing, and for no mask.
      home: (N,) int, each track's home, -1 for a track of nothing.
    """
    count, num_labels, frames = len(scene.masks), len(scene.label_places), scene.masks.shape[1]
    if not num_labels:
        return np.full((count, frames), NOTHING), np.full(count, NOTHING)
    common = np.maximum(scene.common, 0)
    theirs = np.maximum(scene.source_areas[scene.label_rows], 0)
    union = np.maximum(scene.areas, 0)[:, None] + theirs[None] - common
    iou = np.divide(common, union, out=np.zeros(union.shape), where=union > 0)
    on = np.where(iou.max(1) >= LIES_ON, iou.argmax(1), NOTHING)
    weight = np.where(on[:, None] == np.arange(num_labels)[:, None], iou, 0).sum(-1)
    something = (weight.sum(1) > 0) & (weight.sum(1) >= LIES_ON * (scene.masks >= 0).sum(1))
    return np.where(something[:, None], on, NOTHING), np.where(something, weight.argmax(1), NOTHING)


def keepers(scene, home):
    """(G,) int, the keeper of every label, -1 where no track is at home and for crowds."""
    everything = pair_of(scene, None, np.arange(len(scene.masks)), np.arange(len(scene.label_places)))
    iou = track_iou(everything)
    keeper = np.full(len(scene.label_places), NOTHING)
    for g in np.flatnonzero(~scene.labels.crowd):
        there = np.flatnonzero(home == g)
        if len(there):
            right = scene.categories[there] == scene.label_categories[g]
            keeper[g] = there[np.lexsort((scene.scores[there], iou[there, g], right))[-1]]
    return keeper


def correct_identities(scene):
    """Association: every mask goes to the one track of the object it lies on.

    Tracks split over time are merged, mixed ones cut. No mask is added, dropped or changed. Where several
    masks lie on one object in a frame, the track of the object's class has it, then the higher score; the
    others stay in a track of their own (they are false, not swapped). A mask of nothing stays with the
    masks that its track has on its home, where the frame is free. A new track's score is the mean score of
    its masks, its class their vote, each mask weighing its track's score.
    """
    on, home = lies_on(scene)
    left = scene.masks.copy()
    rows = []  # (place in the file, masks, score, category, length)
    for g in np.flatnonzero(~scene.labels.crowd):
        givers = np.flatnonzero((on == g).any(1))
        right = scene.categories[givers] == scene.label_categories[g]
        givers = givers[np.lexsort((-scene.scores[givers], ~right))]
        track, given = np.full(left.shape[1], NOTHING), {}
        for n in givers:
            frames = (on[n] == g) & (track < 0)
            if frames.any():
                track[frames], left[n, frames] = left[n, frames], NOTHING
                given[n] = np.count_nonzero(frames)
        for n in given:
            if home[n] == g:
                strays = (left[n] >= 0) & (on[n] < 0) & (track < 0)
                track[strays], left[n, strays] = left[n, strays], NOTHING
        if given:
            rows.append((max(given, key=given.get), track, *_vote(scene, given)))
    for n in range(len(left)):
        if (left[n] >= 0).any() or not (scene.masks[n] >= 0).any():
            rows.append((n, left[n], scene.scores[n], scene.categories[n], scene.lengths[n]))
    rows.sort(key=lambda row: row[0])
    return _with_tracks(scene, [row[1:] for row in rows])


def _vote(scene, given):
    """(score, category, length) of a track to which track n gave `given[n]` masks."""
    givers, counts = np.array(list(given)), np.array(list(given.values()))
    scores = scene.scores[givers]
    # Within the scores it came from, so that rounding does not reorder equal ones.
    score = np.clip((scores * counts).sum() / counts.sum(), scores.min(), scores.max())
    votes = {}
    for category, weight in zip(scene.categories[givers], scores * counts):
        votes[category] = votes.get(category, 0) + weight
    return score, max(votes, key=votes.get), scene.lengths[givers].max()


def correct_classes(scene):
    """Classification: every track gets the class of its home; tracks of nothing keep theirs."""
    _, home = lies_on(scene)
    right = scene.label_categories[home] if len(scene.label_categories) else scene.categories
    return replace(scene, categories=np.where(home >= 0, right, scene.categories))


def correct_masks(scene):
    """Segmentation: every mask that lies on an object becomes that object's true mask of the frame.

    Frames without a mask stay so, masks of nothing stay as they are, tracks stay mixed if they were.
    """
    on, _ = lies_on(scene)
    return replace(scene, masks=np.where(on >= 0, len(scene.track_places) + on, scene.masks))


def add_missed(scene):
    """Detection, what was not found: objects and frames of objects on which no mask lies.

    An object at which no track is at home, and on which masks lie in less than half of the frames in which
    it is seen, becomes a perfect prediction with score 1. Where an object has a keeper, that gets the true
    mask in the frames in which the object is seen, no mask lies on it and the keeper has none.
    """
    on, home = lies_on(scene)
    keeper = keepers(scene, home)
    masks, lengths, added = scene.masks.copy(), scene.lengths.copy(), []
    frames = np.arange(masks.shape[1])
    for g in np.flatnonzero(~scene.labels.crowd & scene.visible.any(1)):
        missed = scene.visible[g] & ~(on == g).any(0)
        row = scene.label_rows[g]
        if keeper[g] < 0 and 2 * missed.sum() > scene.visible[g].sum():
            track = np.where(scene.visible[g], row, NOTHING)
            added.append((track, 1.0, scene.label_categories[g], scene.labels.lengths[g]))
        elif keeper[g] >= 0:
            n = keeper[g]
            filled = missed & (masks[n] < 0)
            masks[n, filled] = row
            # A list that is too short would leave these frames out of the overlap.
            lengths[n] = max(lengths[n], frames[filled].max(initial=-1) + 1)
    rows = list(zip(masks, scene.scores, scene.categories, lengths))
    return _with_tracks(scene, rows + added)


def remove_false(scene):
    """Detection, what is not there: masks of nothing, tracks of nothing and second tracks of an object.

    Masks of nothing are removed, and tracks of nothing with all of theirs. Then every track goes of whose
    masks more than half lie on objects whose keeper, another track, has a mask on them in that frame too.
    """
    on, home = lies_on(scene)
    keeper = keepers(scene, home)
    second = np.zeros(on.shape, bool)
    for g in np.flatnonzero(keeper >= 0):
        second |= (on == g) & (on[keeper[g]] == g)
        second[keeper[g], on[keeper[g]] == g] = False
    found = (on >= 0).sum(1)
    stays = (found > 0) & (2 * second.sum(1) <= found)
    return _keep(replace(scene, masks=np.where(on >= 0, scene.masks, NOTHING)), stays)


def correct_all(scene):
    """All five, one after the other: the labels themselves, so AP 1 unless a label has no mask at all.

    A check that the five leave no error out. Tracks at home on a crowd, of which the five complete none,
    are put aside.
    """
    for correct in (correct_identities, correct_classes, correct_masks, remove_false, add_missed):
        scene = correct(scene)
    _, home = lies_on(scene)
    return _keep(scene, ~np.isin(home, np.flatnonzero(scene.labels.crowd)))


CORRECTIONS = {
    "identities": correct_identities,
    "classes": correct_classes,
    "masks": correct_masks,
    "missed": add_missed,
    "false": remove_false,
}


def _keep(scene, stays):
    """The scene with those tracks for which `stays` (N,) bool is true."""
    return replace(
        scene,
        masks=scene.masks[stays],
        scores=scene.scores[stays],
        categories=scene.categories[stays],
        lengths=scene.lengths[stays],
    )


def _with_tracks(scene, rows):
    """The scene with other tracks: rows of (masks, score, category, length)."""
    masks, scores, categories, lengths = zip(*rows) if rows else ((), (), (), ())
    return replace(
        scene,
        masks=np.array(masks, int).reshape(len(rows), scene.masks.shape[1]),
        scores=np.array(scores, float),
        categories=np.array(categories, int),
        lengths=np.array(lengths, int),
    )
