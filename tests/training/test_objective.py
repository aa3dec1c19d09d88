"""With `both_ways` every frame is key and reference in turn: the losses equal those of two separate pairs."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from masktrack_jax.data.batches import FramePairs
from masktrack_jax.data.options import PairOptions
from masktrack_jax.data.pairs import PairLoader
from masktrack_jax.data.vis import read_vis
from masktrack_jax.training.objective import pair_losses
from tests.helpers.configs import load_config


@pytest.fixture(scope="module")
def pairs(tiny_data):
    """One pair of the tiny data with targets on both frames."""
    options = PairOptions.from_config(load_config("tiny").data)
    loader = PairLoader(read_vis(tiny_data), dataclasses.replace(options, both_ways=True))
    return jax.tree.map(lambda x: np.asarray(x)[None], loader(1, 0, np.random.default_rng(0)).pairs)


def test_matches_of_the_two_frames_are_each_other(pairs):
    matches, back = (frames.targets.matches[0] for frames in pairs)
    assert matches.any()
    for row in np.flatnonzero(matches):
        assert back[matches[row] - 1] == row + 1
    assert np.count_nonzero(back) == np.count_nonzero(matches)


def test_losses_are_those_of_the_pair_and_the_reversed_pair(pairs, tiny_model):
    model, variables = tiny_model
    options = FrozenConfigDict(load_config("tiny").train)
    key = jax.random.key(5)

    @jax.jit
    def losses(pairs, key):
        return nn.apply(lambda m: pair_losses(m, pairs, key[None], options)[0], model)(variables)

    there = FramePairs(pairs.key, pairs.reference._replace(targets=None))
    back = FramePairs(pairs.reference, pairs.key._replace(targets=None))
    both = losses(pairs, key)
    parts = [losses(there, key), losses(back, jax.random.fold_in(key, 1))]
    for name, (total, count) in both.items():
        np.testing.assert_allclose(total, sum(part[name][0] for part in parts), rtol=1e-4, err_msg=name)
        assert count == sum(part[name][1] for part in parts), name
