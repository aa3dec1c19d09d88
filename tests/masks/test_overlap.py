"""Intersections of masks through the evaluator, against pixels, in cases where pycocotools alone fails."""

import numpy as np

from masktrack_jax.evaluation.overlaps import compute_overlaps
from tests.helpers.rle_writer import rle, string_of


def test_overlap_of_masks_with_empty_runs_at_the_same_pixel():
    # One object of 10 pixels on both sides; pycocotools alone would find an overlap of nothing.
    split = {"size": [10, 10], "counts": string_of([30, 0, 0, 10, 60])}
    whole = {"size": [10, 10], "counts": string_of([30, 4, 0, 6, 60])}
    truth = {
        "videos": [{"id": 1, "height": 10, "width": 10, "length": 3}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [{"id": 1, "video_id": 1, "category_id": 1, "segmentations": [split, whole, split]}],
    }
    track = {"video_id": 1, "category_id": 1, "score": 1.0, "segmentations": [split, whole, whole]}
    (pair,) = compute_overlaps(truth, [track]).pairs
    assert pair.intersection.tolist() == [[[10, 10, 10]]]
    assert truth["annotations"][0]["segmentations"][0]["counts"] == split["counts"]


def test_overlap_of_more_masks_than_a_byte_counts():
    rng = np.random.default_rng(0)
    dense = rng.random((300, 4, 5)) < 0.5
    tracks = [{"video_id": 1, "category_id": 1, "score": 1.0, "segmentations": [rle(mask)]} for mask in dense]
    truth = {
        "videos": [{"id": 1, "height": 4, "width": 5, "length": 1}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [{**track, "id": n} for n, track in enumerate(tracks)],
    }
    (pair,) = compute_overlaps(truth, tracks[:100]).pairs
    flat = dense.reshape(300, 20).astype(int)
    assert np.array_equal(pair.intersection[..., 0], flat[:100] @ flat.T)
