"""Identity metrics against the numbers recorded from TrackEval, and small cases known by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as rle_library

from masktrack_jax.evaluation.identity import evaluate_identity

CASES = Path(__file__).parent.parent / "cases" / "evaluation"


@pytest.mark.parametrize("part, threshold", [("all", float("-inf")), ("score_ge_0_5", 0.5)])
@pytest.mark.parametrize("case", ["case01", "case02", "case03", "case04"])
def test_equals_trackeval(case, part, threshold):
    ground_truth, results, expected = (
        json.loads((CASES / f"{case}_{name}.json").read_text()) for name in ("gt", "pred", "trackeval")
    )
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
    mask = np.zeros(size, np.uint8, order="F")
    mask[2:12, x : x + 10] = 1
    rle = rle_library.encode(mask)
    return {"size": list(size), "counts": rle["counts"].decode()}


def problem(labels, tracks):
    """One category in one video; lists of lists of left edges, None for absent."""
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


def test_two_objects_that_swap_identities_switch_twice():
    labels = [[0, 0, 0, 0], [40, 40, 40, 40]]
    metrics = evaluate_identity(*problem(labels, [[0, 0, 40, 40], [40, 40, 0, 0]]))["pooled"]
    assert metrics["IDSW"] == 2 and metrics["DetA"] == 1 and metrics["Frag"] == 0
    assert metrics["MOTA"] == 1 - 2 / 8 and metrics["IDF1"] == 0.5
    assert metrics["AssA"] == pytest.approx(2 / 6)


def test_a_gap_is_a_fragment_when_something_else_is_seen_meanwhile():
    labels = [[0, 0, 0], [40, 40, 40]]
    metrics = evaluate_identity(*problem(labels, [[0, None, 0], [40, 40, 40]]))["pooled"]
    assert metrics["Frag"] == 1 and metrics["IDSW"] == 0 and metrics["MOTA"] == pytest.approx(5 / 6)


def test_threshold_leaves_tracks_out_and_empty_counts_are_numbers():
    ground_truth, results = problem([[0, 0]], [[0, 0]])
    metrics = evaluate_identity(ground_truth, results, score_threshold=1.5)["pooled"]
    assert metrics["HOTA"] == metrics["MOTA"] == metrics["IDF1"] == 0 and metrics["ML"] == 1
    assert evaluate_identity(ground_truth, [])["pooled"]["tracks"] == 0


def test_masks_beyond_the_video_and_of_another_size_do_not_match():
    ground_truth, results = problem([[0, 0]], [[0, 0]])
    results[0]["segmentations"] = [square(0), square(0, (21, 60)), square(0)]
    metrics = evaluate_identity(ground_truth, results)["pooled"]
    assert metrics["IDF1"] == 0.5 and metrics["MOTA"] == 0
