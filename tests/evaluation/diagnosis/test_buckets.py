"""Buckets of size, length and occlusion, against labels whose areas and lengths are known."""

import numpy as np
import pytest

from masktrack_jax.evaluation.diagnosis.buckets import hidden_share, make_buckets
from masktrack_jax.evaluation.overlaps import Tracks
from tests.helpers.diagnosis import CAT, TOP, compare, diagnose, ground_truth, rectangle, track


def areas_of(*rows):
    areas = np.array(rows)
    lengths = np.full(len(rows), areas.shape[1])
    zeros = np.zeros(len(rows))
    return Tracks(zeros, zeros.astype(bool), zeros, lengths, areas)


def test_hidden_share():
    rows = [
        [-1, 100, 100, 100, -1, -1],  # before and after do not count
        [100, -1, -1, 100, 100, 100],
        [100, 49, 100, 100, 50, -1],  # below half of the median, not at it
        [-1, -1, -1, -1, -1, -1],
    ]
    assert hidden_share(areas_of(*rows)).tolist() == pytest.approx([0, 2 / 6, 1 / 5, 0])


def test_buckets_of_length_occlusion_and_official_size():
    big = (300, 300)

    def seen(frames, side):
        return [rectangle(0, 0, side, side, big) if t in frames else None for t in range(6)]

    # (seen in frames, side): 2 frames small, 4 medium with a gap, 6 large.
    truth = ground_truth((seen((0, 1), 20), CAT), (seen((0, 1, 4, 5), 200), CAT), (seen(range(6), 280), CAT))
    truth["videos"][0] |= {"height": 300, "width": 300}
    results = [track(label["segmentations"], score=0.5) for label in truth["annotations"]]
    del results[1]
    rows = diagnose(truth, results).report["buckets"]
    by_kind = {kind: [row for row in rows if row["kind"] == kind] for kind in ("size", "length", "occlusion")}
    assert [row["name"] for row in by_kind["size"]] == ["small, ≤ 128²", "medium", "large, ≥ 256²"]
    assert [row["name"] for row in by_kind["length"]] == ["2 frames", "3–4 frames", "5–6 frames"]
    assert [row["name"] for row in by_kind["occlusion"]] == ["never hidden", "hidden more"]
    for kind in ("size", "length"):
        assert [row["labels"] for row in by_kind[kind]] == [1, 1, 1]
        assert [row["AP"] for row in by_kind[kind]] == pytest.approx([1, 0, 1])
        assert [row["gains"]["missed"] for row in by_kind[kind]] == pytest.approx([0, 1, 0])
    assert [(row["labels"], row["AP"]) for row in by_kind["occlusion"]] == [(2, pytest.approx(1)), (1, 0)]


def test_sizes_are_relative_where_all_are_small():
    labels = [([rectangle(0, 0, side, side)] * 6, CAT) for side in (4, 6, 8, 10, 12, 14)]
    sizes = [b for b in make_buckets(compare(ground_truth(*labels), [])) if b.kind == "size"]
    assert [bucket.name for bucket in sizes] == ["16–36 pixels", "37–100 pixels", "101–196 pixels"]


def test_most_labels_of_one_length():
    labels = [(TOP, CAT)] * 4 + [(TOP[:2] + [None] * 4, CAT)]
    lengths = [b for b in make_buckets(compare(ground_truth(*labels), [])) if b.kind == "length"]
    assert [bucket.name for bucket in lengths] == ["2–5 frames", "6 frames"]
