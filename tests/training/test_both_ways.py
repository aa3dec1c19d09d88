"""Frames of a pair as key and reference in turn: the same losses as two pairs written out."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from masktrack_jax.data.options import PairOptions
from masktrack_jax.data.pairs import PROVENANCE, PairLoader
from masktrack_jax.data.vis import read_vis
from masktrack_jax.training.objective import pair_losses
from tests.helpers.configs import load_config

FRAME = ("image", "image_size", "boxes", "valid")
TARGETS = ("labels", "masks", "matches")


@pytest.fixture(scope="module")
def pair(tiny_data):
    """One labelled pair of the tiny data, labels on both frames, with a leading 1."""
    options = PairOptions.from_config(load_config("tiny").data)
    loader = PairLoader(read_vis(tiny_data), dataclasses.replace(options, both_ways=True))
    sample = loader(1, 0, np.random.default_rng(0))
    return {name: np.asarray(x)[None] for name, x in sample.items() if name not in PROVENANCE}


def test_matches_of_the_two_frames_are_each_other(pair):
    matches, back = pair["matches"][0], pair["reference_matches"][0]
    assert matches.any()
    for row in np.flatnonzero(matches):
        assert back[matches[row] - 1] == row + 1
    assert np.count_nonzero(back) == np.count_nonzero(matches)


def test_losses_are_those_of_the_pair_and_the_turned_pair(pair, tiny_model):
    model, variables = tiny_model
    options = FrozenConfigDict(load_config("tiny").train)
    key = jax.random.key(5)

    @jax.jit
    def losses(batch, key):
        return nn.apply(lambda m: pair_losses(m, batch, key[None], options)[0], model)(variables)

    one_way = {name: x for name, x in pair.items() if name.removeprefix("reference_") in FRAME}
    there = one_way | {name: pair[name] for name in TARGETS}
    back = {name: pair[f"reference_{name}"] for name in (*FRAME, *TARGETS)}
    back |= {f"reference_{name}": pair[name] for name in FRAME}
    both = losses(pair, key)
    parts = [losses(there, key), losses(back, jax.random.fold_in(key, 1))]
    for name, (total, count) in both.items():
        np.testing.assert_allclose(total, sum(part[name][0] for part in parts), rtol=1e-4, err_msg=name)
        assert count == sum(part[name][1] for part in parts), name
