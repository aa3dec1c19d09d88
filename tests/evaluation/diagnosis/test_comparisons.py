"""Comparisons of whole videos, split by category again, give the AP of the original overlaps."""

import numpy as np
import pytest

from masktrack_jax.evaluation.diagnosis.comparisons import by_category, read_comparisons
from masktrack_jax.evaluation.vis_ap import average_precision, evaluate_vis
from tests.helpers.diagnosis import BOTTOM, CAT_AND_DOG, DOG, TOP, compare, read, track
from tests.helpers.evaluation import load_case


@pytest.mark.parametrize("case", ["case01", "case02", "case03", "case04"])
def test_categories_split_again_have_the_same_metrics(case):
    ground_truth, results = load_case(case)
    categories, comparisons = read_comparisons(*read(ground_truth, results))
    metrics = average_precision(by_category(comparisons, categories))
    expected = evaluate_vis(ground_truth, results)
    for name in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(getattr(metrics, name), getattr(expected, name))
    assert metrics.ious.keys() == expected.ious.keys()
    for key, ious in expected.ious.items():
        np.testing.assert_array_equal(metrics.ious[key], ious)


def test_places_point_into_the_files():
    results = [track(TOP, category_id=77), track(BOTTOM, DOG), track([None, *TOP[1:]])]
    (video,) = compare(CAT_AND_DOG, results)
    assert video.track_places.tolist() == [0, 1] and video.label_places.tolist() == [0, 1]
    assert video.categories.tolist() == [1, 0] and video.label_categories.tolist() == [0, 1]
    assert video.masks.tolist() == [[0] * 6, [-1, 1, 1, 1, 1, 1]]
    assert video.areas.tolist() == [[144] * 6, [-1, *[144] * 5]] and video.visible.all()
    assert video.intersection[:, :, 1].tolist() == [[0, 144], [144, 0]]
