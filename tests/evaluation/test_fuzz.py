"""Randomly changed results and labels: scored, diagnosed and validated, or rejected with one line."""

import json

import pytest
from hypothesis import given

from masktrack_jax.evaluation.diagnosis.report import diagnose
from masktrack_jax.evaluation.score import score
from masktrack_jax.evaluation.validate import validate
from masktrack_jax.runtime.errors import UserError
from tests.helpers.annotations import annotations, compressed, object_mask
from tests.helpers.mutations import changed


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def ground_truth():
    content = annotations()
    content["annotations"][0]["segmentations"] = [compressed(object_mask()), None]
    return content


RESULTS = [
    {"video_id": 7, "category_id": 9, "score": 0.5, "segmentations": [compressed(object_mask()), None]},
    {"video_id": 7, "category_id": 9, "score": 0.25, "segmentations": [None, compressed(object_mask())]},
]


@given(changed({"results": RESULTS, "truth": ground_truth()}))
def test_results(folder, content):
    """Scored, diagnosed and validated, whatever they and the labels hold."""
    results, truth = (content.get(key) for key in ("results", "truth"))
    names = ("truth.json", "results.json")

    def refusal_names_a_file(run):
        try:
            return run()
        except UserError as error:
            assert "\n" not in str(error) and any(name in str(error) for name in names), str(error)
            return None

    if refusal_names_a_file(lambda: score(truth, results, names)):
        refusal_names_a_file(lambda: diagnose(truth, results, names))
    for name, value in zip(names, (truth, results)):
        (folder / name).write_text(json.dumps(value))
    refusal_names_a_file(lambda: validate(folder / names[1], folder / names[0]))
