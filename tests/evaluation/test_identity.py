"""Identity metrics against the recorded numbers of TrackEval, and small cases with known results."""

import pytest

from masktrack_jax.evaluation.identity import evaluate_identity
from tests.helpers.evaluation import load_case, rectangle


@pytest.mark.parametrize("part, threshold", [("all", float("-inf")), ("score_ge_0_5", 0.5)])
@pytest.mark.parametrize("case", ["case01", "case02", "case03", "case04"])
def test_equals_trackeval(case, part, threshold):
    ground_truth, results, expected = load_case(case, "gt", "pred", "trackeval")
    metrics = evaluate_identity(ground_truth, results, threshold)
    rows = {row["name"]: row for row in metrics["per_category"].values()}
    rows |= {"cls_comb_det_av": metrics["pooled"], "cls_comb_cls_av": metrics["class_average"]}
    assert rows.keys() == expected[part].keys()
    for name, families in expected[part].items():
        assert rows[name]["objects"] == families["Count"]["GT_IDs"]
        assert rows[name]["tracks"] == families["Count"]["IDs"]
        compared = 0
        for family in ("HOTA", "CLEAR", "Identity"):
            for key in families[family].keys() & rows[name].keys():
                assert rows[name][key] == pytest.approx(families[family][key], rel=0, abs=1e-6), (name, key)
                compared += 1
        assert compared == 18


def square(x, size=(20, 60)):
    return rectangle(x, 2, 10, 10, size)


def problem(labels, tracks):
    """One category in one video; tracks are lists of left edges, None for an absent mask."""
    length = max(map(len, labels))

    def masks(edges):
        return [None if x is None else square(x) for x in edges]

    common = {"video_id": 1, "category_id": 1}
    ground_truth = {
        "videos": [{"id": 1, "height": 20, "width": 60, "length": length}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [common | {"id": i, "segmentations": masks(edges)} for i, edges in enumerate(labels)],
    }
    return ground_truth, [common | {"score": 1.0, "segmentations": masks(edges)} for edges in tracks]


def test_perfect_tracks():
    metrics = evaluate_identity(*problem([[0, 1, 2], [40, 40, None]], [[0, 1, 2], [40, 40, None]]))["pooled"]
    ones = {metrics[name] for name in ("HOTA", "DetA", "AssA", "LocA", "IDF1", "MOTA")}
    assert ones == {1.0} and metrics["IDSW"] == metrics["Frag"] == 0


def test_two_objects_that_swap_tracks_switch_twice():
    labels = [[0, 0, 0, 0], [40, 40, 40, 40]]
    metrics = evaluate_identity(*problem(labels, [[0, 0, 40, 40], [40, 40, 0, 0]]))["pooled"]
    assert metrics["IDSW"] == 2 and metrics["DetA"] == 1 and metrics["Frag"] == 0
    assert metrics["MOTA"] == 1 - 2 / 8 and metrics["IDF1"] == 0.5
    assert metrics["AssA"] == pytest.approx(2 / 6)


def test_a_gap_is_a_fragment_if_another_object_is_visible_meanwhile():
    labels = [[0, 0, 0], [40, 40, 40]]
    metrics = evaluate_identity(*problem(labels, [[0, None, 0], [40, 40, 40]]))["pooled"]
    assert metrics["Frag"] == 1 and metrics["IDSW"] == 0 and metrics["MOTA"] == pytest.approx(5 / 6)


def test_threshold_leaves_tracks_out_and_empty_counts_give_numbers():
    ground_truth, results = problem([[0, 0]], [[0, 0]])
    metrics = evaluate_identity(ground_truth, results, score_threshold=1.5)["pooled"]
    assert metrics["HOTA"] == metrics["MOTA"] == metrics["IDF1"] == 0 and metrics["ML"] == 1
    assert evaluate_identity(ground_truth, [])["pooled"]["tracks"] == 0


def test_masks_beyond_the_video_and_of_another_size_do_not_match():
    ground_truth, results = problem([[0, 0]], [[0, 0]])
    results[0]["segmentations"] = [square(0), square(0, (21, 60)), square(0)]
    metrics = evaluate_identity(ground_truth, results)["pooled"]
    assert metrics["IDF1"] == 0.5 and metrics["MOTA"] == 0
