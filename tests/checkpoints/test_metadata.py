"""Metadata of checkpoints: older versions load with today's defaults, and resume only with today's constants.

The oracles are the shipped checkpoint, and configs written as older versions wrote them.
"""

import json
from pathlib import Path

import pytest

from masktrack_jax.checkpoints.metadata import (
    REMOVED,
    Metadata,
    find_step_folder,
    parse_metadata,
    read_metadata,
    read_scores,
)
from masktrack_jax.config.base import base_config
from masktrack_jax.config.inference import validate_inference
from masktrack_jax.inference.load import PRETRAINED
from masktrack_jax.losses.tracking import LOSSES, OVER_ROIS
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.options import value_at
from masktrack_jax.tracking.options import AssociationOptions
from masktrack_jax.tracking.tracks import TrackOptions
from masktrack_jax.training.schedule import DECAY_FACTOR
from masktrack_jax.training.start import check_same_run
from tests.helpers.checkpoints import one_line
from tests.helpers.configs import load_config


def test_what_an_older_description_does_not_say_is_the_papers():
    """The shipped checkpoint was written before there were other rules than the paper's."""
    path = find_step_folder(PRETRAINED) / "about" / "metadata"
    stored = json.loads(path.read_text())["config"]["inference"]
    assert "similarity" not in stored["association"] and "tracks" not in stored
    inference = read_metadata(PRETRAINED).config.inference
    validate_inference(inference)
    assert AssociationOptions(**inference.association) == AssociationOptions()
    assert TrackOptions(**inference.tracks) == TrackOptions()


@pytest.mark.parametrize("over", ["matched", "positives"])
def test_a_description_of_an_older_version(over):
    """What had another name is at its place, what is new at its default."""
    config = json.loads(load_config("tiny").to_json())
    del config["train"]["track"], config["model"]["neck"], config["model"]["track_head"]["kind"]
    config["train"]["match_over"] = over
    about = parse_metadata({"config": config, "categories": [[1, "a"]], "step": 3})
    wanted = load_config("tiny")
    wanted.train.track.softmax.over = over
    assert json.loads(about.config.to_json()) == json.loads(wanted.to_json())


def test_folders_without_a_checkpoint(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "unfinished" / "checkpoints" / "5.orbax-checkpoint-tmp" / "about").mkdir(parents=True)
    for name in ("empty", "none", "unfinished"):
        with pytest.raises(UserError) as error:
            read_metadata(tmp_path / name)
        assert one_line(error).startswith(f"{tmp_path / name}: ")


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"config": {}}', '{"config": {}, "categories": [3], "step": 1}']
)
def test_a_broken_description(tmp_path, text):
    (tmp_path / "about").mkdir()
    (tmp_path / "about" / "metadata").write_text(text)
    with pytest.raises(UserError) as error:
        read_metadata(tmp_path)
    assert "about" in one_line(error)


def old_config(key, value):
    """Metadata as an older version wrote it, with a key that has been removed since."""
    config = json.loads(load_config("tiny").to_json())
    *sections, name = key.split(".")
    section = config
    for part in sections:
        section = section[part]
    section[name] = value
    return {"config": config, "categories": [[1, "a"]], "step": 3}


@pytest.mark.parametrize("key, constant", REMOVED.items())
def test_a_removed_key_goes_if_it_has_the_value_of_its_constant(key, constant):
    metadata = parse_metadata(old_config(key, constant))
    assert json.loads(metadata.config.to_json()) == json.loads(load_config("tiny").to_json())
    kept = parse_metadata(old_config(key, "another")).config
    assert value_at(kept, key) == "another"
    with pytest.raises(UserError, match=rf"holds a run with config\.{key}=another, not None; use another"):
        check_same_run(Path("run"), Metadata(kept, [(1, "a")], 3), load_config("tiny"), [(1, "a")])


def test_removed_keys_and_their_constants():
    assert REMOVED["optimizer.decay_factor"] == DECAY_FACTOR
    for loss in LOSSES:
        assert REMOVED[f"train.track.{loss}.references"] == ("rois" if loss in OVER_ROIS else "objects")
    flat = base_config().to_json()
    assert "decay_factor" not in flat and "references" not in flat


@pytest.mark.parametrize("part", ["train", "optimizer"])
def test_a_section_that_is_none_is_refused(part):
    content = old_config("optimizer.decay_factor", 0.1)
    content["config"][part] = 3
    with pytest.raises(TypeError):
        parse_metadata(content)


def test_the_shipped_checkpoint_loads():
    """It was written with the removed keys at their constants, or without them."""
    metadata = read_metadata(PRETRAINED)
    assert metadata.config.optimizer.keys() == base_config().optimizer.keys()
    assert metadata.config.train.track.keys() == base_config().train.track.keys()
    assert len(metadata.categories) == 4


@pytest.mark.parametrize("text", ['{"scores": {"AP": 1' + "0" * 400 + "}}", "[" * 100_000, '{"scores": 1}'])
def test_scores_that_cannot_be_read_are_none(tmp_path, text):
    (tmp_path / "about").mkdir()
    (tmp_path / "about" / "metadata").write_text(text)
    assert read_scores(tmp_path) == {}
