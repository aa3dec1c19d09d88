"""AP on random problems against a slow, simple evaluator with dense masks and nested loops."""

import numpy as np
import pytest
from pycocotools import mask as rle_library

from masktrack_jax.evaluation.vis_ap import STATISTICS, evaluate_vis

HEIGHT, WIDTH, FRAMES = 264, 260, 3


def reference_iou(prediction, label):
    common = union = 0
    for ours, theirs in zip(prediction, label):
        if ours is not None and theirs is not None:
            if ours.shape == theirs.shape:
                common += (ours & theirs).sum()
                union += (ours | theirs).sum()
        else:
            union += sum(mask.sum() for mask in (ours, theirs) if mask is not None)
    return common / union if union else 0.0


def reference_mean_area(areas):
    areas = [area for area in areas if area]
    return sum(areas) / len(areas) if areas else 0


def reference_matches(predictions, labels, threshold, low, high):
    """(score, outcome) of each prediction by descending score, and the number of labels that count."""
    ignored = [label["iscrowd"] or not low <= reference_mean_area(label["areas"]) <= high for label in labels]
    taken, outcomes = set(), []
    for prediction in sorted(predictions, key=lambda p: -p["score"])[:100]:
        best = None
        for want_ignored in (False, True):
            if best is not None:
                break
            best_iou = threshold
            for j, label in enumerate(labels):
                if bool(ignored[j]) != want_ignored or (j in taken and not label["iscrowd"]):
                    continue
                iou = label["iou"](prediction["masks"])
                if iou >= best_iou:
                    best, best_iou = j, iou
        if best is not None:
            taken.add(best)
            outcome = "ignored" if ignored[best] else "hit"
        else:
            area = reference_mean_area([m.sum() for m in prediction["masks"] if m is not None])
            outcome = "miss" if low <= area <= high else "ignored"
        outcomes.append((prediction["score"], outcome))
    return outcomes, sum(not flag for flag in ignored)


def reference_ap_ar(videos, threshold, low, high, limit):
    """(AP, AR) of one category, or (None, None); `videos` is a list of (predictions, labels)."""
    outcomes, count = [], 0
    for predictions, labels in videos:
        found, labels_that_count = reference_matches(predictions, labels, threshold, low, high)
        outcomes += found[:limit]
        count += labels_that_count
    if not count:
        return None, None
    hits = misses = 0
    points = []
    for _, outcome in sorted(outcomes, key=lambda pair: -pair[0]):
        hits += outcome == "hit"
        misses += outcome == "miss"
        points.append((hits / count, hits / (hits + misses) if hits + misses else 0.0))
    at_recalls = [
        max([precision for recall, precision in points if recall >= wanted], default=0.0)
        for wanted in np.linspace(0, 1, 101)
    ]
    return np.mean(at_recalls), hits / count


def reference_stats(problem, category_ids):
    ranges = {"s": (0, 128**2), "m": (128**2, 256**2), "l": (256**2, 1e10), "": (0, 1e10)}
    stats = {}
    for name in STATISTICS:
        thresholds = np.linspace(0.5, 0.95, 10)
        limit, letter = 100, ""
        if name[2:] in ("50", "75"):
            thresholds = [int(name[2:]) / 100]
        elif name.startswith("AR") and name[2:].isdigit():
            limit = int(name[2:])
        else:
            letter = name[2:]
        pairs = [
            reference_ap_ar(problem[category_id], threshold, *ranges[letter], limit)
            for category_id in category_ids
            for threshold in thresholds
        ]
        values = [pair[name.startswith("AR")] for pair in pairs if pair[0] is not None]
        stats[name] = np.mean(values) if values else None
    return stats


def remembered_iou(label_masks):
    """prediction → `reference_iou` with one label, computed once."""
    known = {}

    def iou(masks):
        if id(masks) not in known:
            known[id(masks)] = reference_iou(masks, label_masks)
        return known[id(masks)]

    return iou


def encode(rng, mask):
    """A mask as compressed or uncompressed RLE, with or without runs of length 0."""
    rle = rle_library.encode(np.asfortranarray(mask.astype(np.uint8)))
    if rng.random() < 0.4:
        return {"size": list(mask.shape), "counts": rle["counts"].decode()}
    pixels = np.concatenate([[False], mask.ravel(order="F")])
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]).tolist()
    if rng.random() < 0.5:
        changes[1:1] = changes[:1] * 2  # a run of length 0 at the first pixel, and one in the background
        changes = sorted([*changes, 7, 7])
    uncompressed = {"size": list(mask.shape), "counts": np.diff([0, *changes, mask.size]).tolist()}
    if rng.random() < 0.3:
        return uncompressed
    rle = rle_library.frPyObjects(uncompressed, *mask.shape)
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def random_masks(rng, base, length, odd=0.0):
    """Masks of a track around the box `base`: often equal, sometimes absent or empty, some (`odd`) turned."""
    masks = []
    for _ in range(length):
        y, x, height, width = base + rng.choice([0, 0, 0, 2, 9]) * rng.integers(-1, 2, 4)
        mask = np.zeros((HEIGHT, WIDTH) if rng.random() >= odd else (WIDTH, HEIGHT), bool)
        mask[max(y, 0) : y + height, max(x, 0) : x + width] = rng.random() < 0.95
        masks.append(None if rng.random() < 0.15 else mask)
    return masks


def random_problem(seed, most_predictions=5):
    """(ground truth, results, category id → list of (predictions, labels) of each video)."""
    rng = np.random.default_rng(seed)
    category_ids = [7, 2, 4]
    videos = [{"id": v, "height": HEIGHT, "width": WIDTH, "length": FRAMES} for v in (5, 1, 3)]
    annotations, results = [], []
    problem = {c: {v["id"]: ([], []) for v in videos} for c in category_ids}
    boxes = np.array(
        [[0, 0, 128, 128], [2, 1, 256, 256], [20, 20, 60, 90], [3, 4, 257, 255], [60, 90, 128, 127]]
    )
    for video in videos:
        for _ in range(rng.integers(2, 9)):
            base, category = boxes[rng.integers(len(boxes))], int(rng.choice([7, 2]))
            for _ in range(rng.integers(0, 3)):
                masks = random_masks(rng, base, FRAMES)
                areas = [None if m is None else int(m.sum()) for m in masks]
                if rng.random() < 0.3:
                    areas[0] = int(rng.choice([128**2, 256**2, 0, 500]))
                record = {
                    "id": int(rng.integers(0, 3)),
                    "video_id": video["id"],
                    "category_id": category,
                    "iscrowd": int(rng.random() < 0.2),
                    "areas": areas,
                    "segmentations": [m if m is None else encode(rng, m) for m in masks],
                }
                annotations.append(record)
                reference = {"masks": masks, "iou": remembered_iou(masks)}
                problem[category][video["id"]][1].append(record | reference)
            for _ in range(rng.integers(0, most_predictions)):
                masks = random_masks(rng, base, rng.integers(1, FRAMES + 2), odd=0.05)
                category = category if rng.random() < 0.9 else 4
                record = {
                    "video_id": video["id"],
                    "category_id": category,
                    "score": round(float(rng.random()), 1),
                    "segmentations": [m if m is None else encode(rng, m) for m in masks],
                }
                results.append(record)
                problem[category][video["id"]][0].append(record | {"masks": masks})
    categories = [{"id": c, "name": f"category {c}"} for c in category_ids]
    ground_truth = {"videos": videos, "categories": categories, "annotations": annotations}
    return ground_truth, results, {c: [found[v] for v in sorted(found)] for c, found in problem.items()}


@pytest.mark.parametrize("seed, most_predictions", [*((seed, 5) for seed in range(14)), (14, 60), (15, 60)])
def test_equals_the_simple_evaluator(seed, most_predictions):
    ground_truth, results, problem = random_problem(seed, most_predictions)
    if most_predictions > 5:  # ties at the limit, too: scores have one digit
        assert max(len(predictions) for found in problem.values() for predictions, _ in found) > 110
    metrics = evaluate_vis(ground_truth, results)
    assert metrics.stats == pytest.approx(reference_stats(problem, sorted(problem)), abs=1e-9)
    for category_id, row in metrics.per_category.items():
        expected = reference_stats(problem, [category_id])
        assert {name: row[name] for name in STATISTICS} == pytest.approx(expected, abs=1e-9)
