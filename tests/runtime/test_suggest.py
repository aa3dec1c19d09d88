"""Suggestions for unknown keys: the intended key, in any section, or none."""

import pytest

from masktrack_jax.config.listing import config_keys
from masktrack_jax.runtime.suggest import ALIASES, nearest_key


@pytest.mark.parametrize(
    "key, meant",
    [
        ("train.lr", "optimizer.learning_rate"),
        ("lr", "optimizer.learning_rate"),
        ("train.bach_size", "train.batch_size"),
        ("optimiser.learning_rate", "optimizer.learning_rate"),
        ("train.wd", "optimizer.weight_decay"),
        ("model.num_workers", "data.workers"),
        ("model.fpn.chanels", "model.fpn.channels"),
        ("model.mask_head.chanels", "model.mask_head.channels"),
        ("inference.association.memmory", "inference.association.memory"),
        ("train.batch_size.x", "train.batch_size"),
        ("train.score_treshold", "model.detections.score_threshold"),
        ("inference.label", "inference.tracks.label"),
        ("data.epochs", "train.epochs"),
        ("foo", None),
        ("train.colour", None),
    ],
)
def test_the_key_that_was_meant(key, meant):
    assert nearest_key(key, config_keys()) == meant


def test_aliases_are_of_keys_that_exist():
    names = {key.rpartition(".")[2] for key in config_keys()}
    assert names >= set(ALIASES.values()) and not names & set(ALIASES)


def test_only_known_keys_are_suggested():
    assert nearest_key("train.lr", ["model.dtype"]) is None
    assert nearest_key("model.dtyp", ["model.dtype"]) == "model.dtype"
