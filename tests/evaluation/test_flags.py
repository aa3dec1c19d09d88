"""Flags of evaluate.py: each combination that has no effect is refused."""

import pytest

from masktrack_jax.evaluation.flags import check_flags
from masktrack_jax.evaluation.validate import write_submission
from masktrack_jax.runtime.errors import UserError

NONE = dict.fromkeys(("config", "checkpoint", "annotations", "results", "frames", "diagnose"))


def check(changed=(), **given):
    check_flags(NONE | {"output": "metrics.json"} | given, changed)


@pytest.mark.parametrize(
    "given, words",
    [
        ({}, "give --config and --checkpoint, or --annotations and --results"),
        ({"config": True}, "give --config and --checkpoint, or"),
        ({"annotations": "g"}, "give --config and --checkpoint, or"),
        ({"results": "r"}, "--results needs --annotations"),
        ({"checkpoint": "c"}, "--checkpoint needs --config"),
        ({"annotations": "g", "results": "r", "checkpoint": "c"}, "leave one of them out"),
        ({"results": "r", "checkpoint": "c", "config": True}, "leave one of them out"),
        ({"annotations": "g", "results": "r", "config": True}, "--config has no effect"),
        ({"annotations": "g", "results": ""}, "--results: is empty"),
        ({"annotations": "g", "results": "r", "frames": "f"}, "--frames is for the pictures of --diagnose"),
        ({"config": True, "checkpoint": "c", "frames": "f"}, "--frames is for the pictures of --diagnose"),
        ({"annotations": "g", "results": "r", "frames": "f", "diagnose": True}, "f: no such folder"),
        ({"config": True, "checkpoint": "c", "output": "out/results.json"}, "results.json is written beside"),
    ],
)
def test_refused(given, words):
    with pytest.raises(UserError, match=words):
        check(**given)


def test_obeyed(tmp_path):
    check(annotations="g", results="r")
    check(annotations="g", results="r", diagnose=True, frames=str(tmp_path))
    check(config=True, checkpoint="c", changed=["data.val_annotations", "model.fpn.channels"])
    check(config=True, checkpoint="c", annotations="g", frames=str(tmp_path), changed=["data.workers"])


def test_a_split_of_the_config_beside_annotations_is_refused():
    with pytest.raises(UserError, match=r"config\.data\.holdout has no effect beside --annotations"):
        check(config=True, checkpoint="c", annotations="g", changed=["data.holdout"])


@pytest.mark.parametrize("key", ["train.steps", "optimizer.learning_rate"])
def test_what_training_alone_reads_is_refused(key):
    with pytest.raises(UserError, match=rf"config\.{key} has no effect on the score of a checkpoint"):
        check(config=True, checkpoint="c", changed=[key])


def test_inputs_are_not_overwritten(tmp_path):
    results = tmp_path / "results.json"
    results.write_text("[]")
    for name in ("results", "annotations"):
        given = {"annotations": str(tmp_path), "results": str(tmp_path)} | {name: str(results)}
        with pytest.raises(UserError, match=f"would replace --{name}"):
            check(**given, output=str(tmp_path / "." / "results.json"))
    check(annotations="gone.json", results="gone.json", output=str(results))  # the readers report them


def test_a_zip_replaces_no_input(tmp_path):
    results = tmp_path / "results.json"
    results.write_text("[]")
    for path, words in ((results, "--zip would replace it"), (tmp_path / "gone.json", "cannot be read")):
        with pytest.raises(UserError, match=words):
            write_submission(path, tmp_path / "gone.json", results)
    assert results.read_text() == "[]"
