"""AP against the recorded numbers of the official evaluator, and edge cases with known results."""

import json

import numpy as np
import pytest

from masktrack_jax.evaluation.vis_ap import evaluate_vis
from tests.helpers.evaluation import CASES, load_case, one_video, rectangle, track


def number(value):
    """The value, or -1 for None as in the official arrays."""
    return -1 if value is None else value


@pytest.mark.parametrize("case", ["case01", "case02", "case03", "case04"])
def test_equals_the_official_evaluator(case):
    ground_truth, results, expected = load_case(case, "gt", "pred", "expected")
    arrays = np.load(CASES / f"{case}_expected.npz")
    metrics = evaluate_vis(ground_truth, results)
    ours = [number(value) for value in metrics.stats.values()]
    assert list(metrics.stats) == expected["stat_names"]
    np.testing.assert_allclose(ours, expected["stats"], rtol=0, atol=1e-9)
    assert list(metrics.per_category) == expected["category_order"]
    for category_id, row in expected["per_category"].items():
        our_row = metrics.per_category[int(category_id)]
        assert our_row["name"] == row.pop("name")
        for name, value in row.items():
            assert number(our_row[name]) == pytest.approx(value, rel=0, abs=1e-9)
    for name in arrays.files:
        if name.startswith("iou_v"):
            video_id, category_id = name[len("iou_v") :].split("_c")
            ours = metrics.ious[int(video_id), int(category_id)]
        else:
            ours = getattr(metrics, name)
        assert ours.shape == arrays[name].shape
        np.testing.assert_allclose(ours, arrays[name], rtol=0, atol=1e-9)


A, B = rectangle(0, 0, 10, 10), rectangle(5, 0, 10, 10)


def test_iou_is_one_ratio_of_sums_over_frames():
    # Frame 1: 50 of 150. Frame 2: no label, 100 in the union. Frame 3: only in the label's list.
    metrics = evaluate_vis(one_video([[A, None, A]]), [track([B, B])])
    assert metrics.ious[1, 1] == pytest.approx(np.array([[50 / 250]]))


def test_frames_of_another_size_are_left_out_and_noted():
    metrics = evaluate_vis(one_video([[A, A]]), [track([A, rectangle(0, 0, 10, 10, (20, 20))])])
    assert metrics.ious[1, 1] == pytest.approx(np.array([[1.0]]))
    assert any("size is not the video's" in note for note in metrics.notes)


def test_equal_iou_goes_to_the_later_label_and_ties_keep_file_order():
    # Both predictions overlap both labels equally.
    metrics = evaluate_vis(one_video([[A], [A]]), [track([A], 0.5), track([A], 0.5)])
    assert metrics.stats["AR1"] == 0.5 and metrics.stats["AR10"] == 1.0


def test_a_crowd_matches_any_number_of_predictions():
    ground_truth = one_video([[A], [B]])
    ground_truth["annotations"][0]["iscrowd"] = 1
    metrics = evaluate_vis(ground_truth, [track([A]), track([A], 0.8), track([B], 0.7)])
    assert metrics.stats["AP"] == pytest.approx(1)


def test_at_most_100_predictions_count():
    wrong = [track([rectangle(30, 30, 5, 5)], 0.9)] * 100
    metrics = evaluate_vis(one_video([[A]]), [*wrong, track([A], 0.1)])
    assert metrics.stats["AR100"] == 0 and metrics.ious[1, 1].shape == (100, 1)
    assert evaluate_vis(one_video([[A]]), [*wrong[1:], track([A], 0.1)]).stats["AR100"] == 1


def test_area_ranges_include_both_ends():
    metrics = evaluate_vis(one_video([[A]], areas=[128**2]), [track([A])])
    assert metrics.stats["APs"] == metrics.stats["APm"] == pytest.approx(1)
    assert metrics.stats["APl"] is None


def test_thresholds_are_inclusive():
    # A label of 20 pixels and a prediction of n of them have IoU n/20: each threshold is met exactly once.
    for pixels in range(9, 21):
        metrics = evaluate_vis(one_video([[rectangle(0, 0, 1, 20)]]), [track([rectangle(0, 0, 1, pixels)])])
        reached = sum(pixels / 20 >= threshold for threshold in np.linspace(0.5, 0.95, 10))
        assert metrics.stats["AP"] == pytest.approx(reached / 10)
    assert reached == 10


@pytest.mark.parametrize("side, ranges", [(128, "sm"), (256, "ml"), (127, "s"), (255, "m"), (257, "l")])
def test_sizes_of_predictions_without_a_label_include_both_ends(side, ranges):
    # A better scored miss of that size halves precision in its ranges and is ignored in the others.
    def square(left, side):
        return rectangle(left, 0, side, side, (260, 600))

    labels = [[square(300, side)] for side in (100, 200, 257)]
    hits = [track([square(300, side)], 0.5) for side in (100, 200, 257)]
    metrics = evaluate_vis(one_video(labels), [track([square(0, side)], 0.9), *hits])
    for letter in "sml":
        assert metrics.stats[f"AP{letter}"] == pytest.approx(0.5 if letter in ranges else 1)


def test_null_and_zero_areas_do_not_count_in_the_mean():
    areas = [None, 0, 128**2 - 1, 128**2 + 1]
    metrics = evaluate_vis(one_video([[A] * 4], areas=areas), [track([A] * 4)])
    assert metrics.stats["APs"] == metrics.stats["APm"] == pytest.approx(1)


def test_a_crowd_takes_by_ordinary_iou():
    # The prediction is inside the crowd, which is twice as large, or a pixel more.
    crowd, inside = rectangle(0, 0, 21, 1), rectangle(0, 0, 10, 1)
    for width, expected in ((21, 0.5), (20, 1.0)):
        crowd = rectangle(0, 0, width, 1)
        ground_truth = one_video([[crowd], [B]])
        ground_truth["annotations"][0]["iscrowd"] = 1
        metrics = evaluate_vis(ground_truth, [track([inside]), track([B], 0.5)])
        assert metrics.stats["AP50"] == pytest.approx(expected)


def test_categories_without_predictions_count_zero():
    ground_truth = one_video([[A], [A]], categories=3)
    ground_truth["annotations"][1]["category_id"] = 2
    metrics = evaluate_vis(ground_truth, [track([A])])
    assert [metrics.stats[name] for name in ("AP", "AR10")] == pytest.approx([0.5, 0.5])
    assert [metrics.per_category[k]["AP"] for k in (1, 2, 3)] == [pytest.approx(1), 0, None]


def test_the_limit_is_for_each_category_of_each_video():
    wrong = [track([rectangle(30, 30, 5, 5)], 0.9, category_id) for category_id in (1, 2)] * 60
    ground_truth = one_video([[A], [A]], categories=2)
    ground_truth["annotations"][1]["category_id"] = 2
    results = [*wrong, track([A], 0.1), track([A], 0.1, category_id=2)]
    assert evaluate_vis(ground_truth, results).stats["AR100"] == pytest.approx(1)


def test_tracks_of_more_than_255_masks():
    metrics = evaluate_vis(one_video([[A] * 300]), [track([A] * 150 + [B] * 150)])
    assert metrics.ious[1, 1] == pytest.approx(np.array([[(150 * 100 + 150 * 50) / (150 * 100 + 150 * 150)]]))


def test_no_results_score_zero():
    metrics = evaluate_vis(one_video([[A]], categories=2), [])
    assert metrics.stats["AP"] == metrics.stats["AR100"] == 0
    assert metrics.per_category[1]["AP"] == 0 and metrics.per_category[2]["AP"] is None
    assert metrics.to_dict()["per_category"]["c2"]["AP"] is None


def test_annotation_id_0_and_repeated_ids_count():
    ground_truth = one_video([[A], [B]], id=0)
    assert evaluate_vis(ground_truth, [track([A]), track([B])]).stats["AP"] == pytest.approx(1)


def test_missing_areas_and_iscrowd_are_filled_in():
    ground_truth = one_video([[A]])
    del ground_truth["annotations"][0]["iscrowd"]
    assert evaluate_vis(ground_truth, [track([A])]).stats["APs"] == pytest.approx(1)


def test_polygon_and_uncompressed_masks_equal_the_compressed_one():
    polygon = [[0, 0, 10, 0, 10, 10, 0, 10]]
    runs = {"size": [40, 40], "counts": [0, *[10, 30] * 9, 10, 1230]}
    metrics = evaluate_vis(one_video([[A, A]]), [track([polygon, runs])])
    assert metrics.ious[1, 1] == pytest.approx(np.array([[1.0]]))


def test_unknown_category_of_a_result_is_noted():
    metrics = evaluate_vis(one_video([[A]]), [track([A], category_id=9), track([A])])
    assert metrics.stats["AP"] == pytest.approx(1)
    assert len(metrics.notes) == 1 and "9" in metrics.notes[0]


def test_arguments_stay_as_they_are():
    ground_truth, results = one_video([[A, None]]), [track([B, None])]
    before = json.dumps([ground_truth, results])
    evaluate_vis(ground_truth, results)
    assert json.dumps([ground_truth, results]) == before


def test_numpy_numbers_are_numbers():
    result = track([A], np.float32(0.5), category_id=np.int64(1))
    assert evaluate_vis(one_video([[A]]), [result]).stats["AP"] == pytest.approx(1)
