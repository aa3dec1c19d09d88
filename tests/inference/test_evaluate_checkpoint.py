"""The split that a checkpoint is scored on: `--annotations`, or else the one that the config names."""

from types import SimpleNamespace

import pytest

from masktrack_jax.inference import evaluate_checkpoint as command
from masktrack_jax.runtime.errors import UserError


@pytest.fixture
def opened(tiny_config, monkeypatch):
    """The `data` section of the config whose split is opened; nothing is segmented."""
    found = {}

    def open_split(config, categories):
        found.update(config.data)
        return None

    monkeypatch.setattr(
        command, "read_metadata", lambda _: SimpleNamespace(config=tiny_config, categories=[])
    )
    monkeypatch.setattr(command, "open_split", open_split)
    tiny_config.data.update(val_annotations="of_config.json", val_frames="of_config", holdout="tenth")
    return found


def test_annotations_replace_the_split_of_the_config(tiny_config, opened):
    with pytest.raises(UserError, match="give --annotations, or set"):
        command.evaluate_checkpoint(tiny_config, "run", "m.json", annotations="gt.json", frames_root="frames")
    assert (opened["val_annotations"], opened["val_frames"]) == ("gt.json", "frames")
    assert opened["holdout"] == ""
    assert tiny_config.data.val_annotations == "of_config.json", "the caller's config stays as it is"


def test_without_annotations_the_config_names_the_split(tiny_config, opened):
    with pytest.raises(UserError):
        command.evaluate_checkpoint(tiny_config, "run", "m.json", frames_root="pictures")
    assert (opened["val_annotations"], opened["val_frames"]) == ("of_config.json", "of_config")
    assert opened["holdout"] == "tenth"


def test_nothing_to_diagnose_on_is_said_before_segmenting(tiny_config, opened, monkeypatch):
    unlabelled = SimpleNamespace(labelled=False, annotations_path="test.json")
    monkeypatch.setattr(command, "open_split", lambda *_: unlabelled)
    with pytest.raises(UserError, match=r"test\.json: has no labels to diagnose on; leave --diagnose out"):
        command.evaluate_checkpoint(tiny_config, "run", "m.json", diagnosed=True)
