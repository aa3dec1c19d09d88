"""The objects and tracks that went worst, and what is wrong with each in a few words."""

import numpy as np

from masktrack_jax.evaluation.diagnosis.corrections import CORRECTIONS, keepers, lies_on

_LOYAL = 0.9  # share of its masks on one object, from which on a track is not called mixed


def best_ious(metrics, scenes, categories):
    """video id → (G,) the best track IoU of each label with a prediction of its class."""
    best = {}
    for scene in scenes:
        values = np.zeros(len(scene.label_places))
        for k, category_id in enumerate(categories):
            iou = metrics.ious.get((scene.video_id, category_id))
            if iou is not None and iou.size:
                values[scene.label_categories == k] = iou.max(0)
        best[scene.video_id] = values
    return best


def worst_objects(scenes, before, after, names, count):
    """The labels whose best track overlaps least, larger ones first at a tie, for `pictures`.

    Args:
      scenes: list of `Scene`.
      before, after: `best_ious` of the tracks as they are; correction → the same after it.
      names: of the categories, in their order.
      count: how many, of one video at most two.
    """
    found = []
    for scene in scenes:
        on, _ = lies_on(scene)
        for g in np.flatnonzero(~scene.labels.crowd & scene.visible.any(1)):
            iou = before[scene.video_id][g]
            gains = {name: after[name][scene.video_id][g] - iou for name in CORRECTIONS}
            found.append(
                {
                    "video_id": scene.video_id,
                    "label": int(scene.label_places[g]),
                    "category": names[scene.label_categories[g]],
                    "iou": float(iou),
                    "reason": _reason(scene, g, on, gains, names),
                    "frames": np.flatnonzero(scene.visible[g]).tolist(),
                    "tracks": _by_weight(scene, on == g),
                    "area": float(scene.labels.mean_area[g]),
                }
            )
    return _few_a_video(sorted(found, key=lambda item: (item["iou"], -item["area"])), count)


def _by_weight(scene, there):
    """Places in the results file of the tracks with a true value in (N, T), by number and score."""
    weights = there.sum(1) * scene.scores
    order = np.argsort(-weights, kind="stable")
    return [int(scene.track_places[n]) for n in order if there[n].any()]


def _reason(scene, g, on, gains, names):
    """In a few words, the correction that raises this object's best IoU most."""
    frames, covered = int(scene.visible[g].sum()), int((on == g).any(0).sum())
    if not covered:
        return "missed: no track lies on it"
    if 2 * covered < frames:
        return f"missed: no mask lies on it in {frames - covered} of {frames} frames"
    best = max(gains, key=gains.get)
    if gains[best] < 0.005:
        return "several errors at once; no single correction helps it"
    tracks = np.flatnonzero((on == g).any(1))
    classes = sorted({names[scene.categories[n]] for n in tracks})
    return {
        "identities": "association: its masks are spread over several tracks",
        "classes": f"classification: found, but called {', '.join(classes)}",
        "masks": "segmentation: found, but its masks fit poorly",
        "missed": f"detection: no mask lies on it in {frames - covered} of {frames} frames",
        "false": "detection: its track also has masks where it is not",
    }[best]


def worst_tracks(scenes, metrics, categories, names, count):
    """The highest-scored tracks that hit no label at IoU 0.5, for `pictures`; as `worst_objects`.

    metrics: the `VisMetrics` of the scenes; categories: their ids in order.
    """
    found = []
    for scene in scenes:
        on, home = lies_on(scene)
        keeper = keepers(scene, home)
        for k, category_id in enumerate(categories):
            match = metrics.matches.get((scene.video_id, category_id))
            rows = np.flatnonzero(scene.categories == k)
            if match is None or not len(rows):
                continue
            for n in rows[match.order[~match.hit[0, 0] & ~match.ignored[0, 0]]]:
                frames = np.flatnonzero(scene.masks[n] >= 0)
                if not len(frames):
                    continue
                found.append(
                    {
                        "video_id": scene.video_id,
                        "tracks": [int(scene.track_places[n])],
                        "labels": [int(scene.label_places[g]) for g in np.unique(on[n]) if g >= 0],
                        "category": names[k],
                        "score": float(scene.scores[n]),
                        "reason": _fault(scene, n, on, home[n], keeper, names),
                        "frames": frames.tolist(),
                    }
                )
    return _few_a_video(sorted(found, key=lambda item: -item["score"]), count)


def _fault(scene, n, on, home, keeper, names):
    """In a few words, why track n hits nothing."""
    if home < 0:
        return "false: it lies on no object"
    if scene.categories[n] != scene.label_categories[home]:
        return f"classification: the object is a {names[scene.label_categories[home]]}"
    there = on[n] == home
    if there.sum() < _LOYAL * (on[n] >= 0).sum():
        return f"association: it lies on {len(np.unique(on[n][on[n] >= 0]))} objects in turn"
    if keeper[home] != n:
        both = there & (on[keeper[home]] == home)
        if 2 * both.sum() > there.sum():
            return "false: a second track of an object that a better one has"
        return "association: a piece of an object's track, another track has the larger part"
    masks, lost = int((scene.masks[n] >= 0).sum()), int(scene.visible[home].sum() - there.sum())
    stray = masks - int(there.sum())
    if max(stray, lost) < 0.5 * masks:
        return "segmentation: it lies on the object with poor masks"
    if stray > lost:
        return f"false: {stray} of its {masks} masks lie on nothing"
    return f"detection: it misses its object in {lost} frames"


def _few_a_video(items, count):
    """The first `count` items, at most two of one video."""
    chosen, taken = [], {}
    for item in items:
        if taken.get(item["video_id"], 0) < 2:
            chosen.append(item)
            taken[item["video_id"]] = taken.get(item["video_id"], 0) + 1
        if len(chosen) == count:
            break
    return chosen
