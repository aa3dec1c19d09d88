"""The listing of a config: every key once, in order, with value and comment, and a star if it differs."""

import re

import pytest

from masktrack_jax.config.base import base_config
from masktrack_jax.config.listing import config_keys, config_lines
from masktrack_jax.training.start import _leaves
from tests.helpers.configs import load_config


def test_every_key_is_listed_once():
    keys = config_keys()
    assert len(keys) == len(set(keys)) and set(keys) == set(dict(_leaves(base_config())))
    sections = list(dict.fromkeys(key.partition(".")[0] for key in keys))
    assert sections == ["seed", "model", "data", "train", "optimizer", "inference"]


@pytest.mark.parametrize("name", [None, "tiny", "original_r50_fpn_youtubevis2019"])
def test_lines_have_values_and_comments(name):
    config = load_config(name) if name else base_config()
    values, base = dict(_leaves(config)), dict(_leaves(base_config()))
    head, *lines = config_lines(config)
    assert head.startswith("# *") and len(lines) == len(values)
    for key, line in zip(config_keys(), lines, strict=True):
        star, listed, rest = re.fullmatch(r"([* ]) (\S+) +(.*)", line).groups()
        assert listed == key and rest.startswith(repr(values[key]))
        assert (star == "*") == (values[key] != base[key])
        assert len(rest.removeprefix(repr(values[key])).strip()) > 3, f"{key} has no comment"


def test_choices_are_listed():
    (line,) = (line for line in config_lines(base_config()) if " optimizer.schedule " in line)
    assert line.endswith("[steps, cosine]")
