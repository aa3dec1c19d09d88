"""Checkpoints are restored bit for bit, and a checkpoint that does not fit is rejected with one line.

The oracle is the state that was saved.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from masktrack_jax.checkpoints import store
from masktrack_jax.checkpoints.metadata import Metadata, read_metadata
from masktrack_jax.checkpoints.steps import Checkpoints
from masktrack_jax.models.masktrack_rcnn import build_model
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.training.schedule import make_optimizer
from masktrack_jax.training.step import create_train_state
from tests.helpers.checkpoints import CATEGORIES, one_line
from tests.helpers.configs import load_config


def small_state(stats, seed=0):
    """A `TrainState` after one update, so that no part of the optimiser's state is zero."""
    rng = np.random.default_rng(seed)
    params = {"a": {"kernel": rng.normal(size=(3, 4)).astype("f4")}, "b": {"bias": np.float32([1.5, -0.0])}}
    variables = {"params": jax.tree.map(jnp.asarray, params)}
    if stats:
        variables["batch_stats"] = {"a": {"mean": jnp.asarray(rng.normal(size=4), jnp.float32)}}
    optimizer = make_optimizer(
        load_config("tiny").optimizer, 10, {"a": {"kernel": True}, "b": {"bias": False}}
    )
    state = create_train_state(jax.random.key(seed + 5), variables, optimizer)
    updates, opt_state = optimizer.update(
        jax.tree.map(jnp.ones_like, state.params), state.opt_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    return state._replace(step=jnp.int32(3 + seed), params=params, opt_state=opt_state)


def plain(state):
    return jax.device_get(state._replace(key=jax.random.key_data(state.key)))


@pytest.mark.parametrize("stats", [True, False])
def test_save_and_restore_are_bit_identical(tmp_path, stats):
    state = small_state(stats)
    config = load_config("tiny")
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest() is None
        checkpoints.save(state, config, CATEGORIES)
        checkpoints.save(state, config, CATEGORIES)  # its step is there already
    other = small_state(stats, seed=1)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest() == 3
        back = checkpoints.restore(3, other)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    for ours, wanted in zip(jax.tree.leaves(plain(back)), jax.tree.leaves(plain(state))):
        assert (ours.dtype, ours.shape, ours.tobytes()) == (wanted.dtype, wanted.shape, wanted.tobytes())
    assert jax.random.uniform(back.key) == jax.random.uniform(state.key)


def test_about_and_the_newest_steps(tmp_path):
    config = load_config("tiny")
    with Checkpoints(tmp_path / "checkpoints", keep=2) as checkpoints:
        for seed in range(3):
            checkpoints.save(small_state(True, seed), config, CATEGORIES)
    steps = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert steps == {"4", "5"}
    for path, step in ((tmp_path, 5), (tmp_path / "checkpoints", 5), (tmp_path / "checkpoints" / "4", 4)):
        about = read_metadata(path)
        assert (about.categories, about.step) == (CATEGORIES, step)
        assert about.config.model.backbone == config.model.backbone
        assert json.loads(about.config.to_json()) == json.loads(config.to_json())


@pytest.fixture(scope="module")
def tiny_checkpoint(tmp_path_factory, tiny_model):
    """A checkpoint for inference only, of configs/tiny.py."""
    folder = tmp_path_factory.mktemp("tiny_checkpoint") / "weights"
    _, variables = tiny_model
    about = Metadata(load_config("tiny"), CATEGORIES, 11)
    store.write_variables(folder, variables, about)
    return folder


def test_variables_come_back(tiny_checkpoint, tiny_model):
    about = read_metadata(tiny_checkpoint)
    got = store.load_variables(tiny_checkpoint, build_model(about.config, len(about.categories)))
    jax.tree.map(np.testing.assert_array_equal, got, tiny_model[1])
    assert about.step == 11


@pytest.mark.parametrize(
    "change, classes, named",
    [
        ({}, 5, "params/box_head/deltas/bias is (12,) there, (20,) in the config"),
        ({"model.fpn.channels": 24}, 3, "params/"),
        ({"model.backbone.norm": "group"}, 3, "batch_stats/"),
        ({"model.backbone.depth": 34}, 3, "stage"),
        ({"model.mask_head.convs": 2}, 3, "params/mask_head/conv2/conv/conv/bias is missing there"),
    ],
)
def test_another_architecture_is_named(tiny_checkpoint, change, classes, named):
    config = load_config("tiny")
    config.update_from_flattened_dict(change)
    with pytest.raises(UserError) as error:
        store.load_variables(tiny_checkpoint, build_model(config, classes))
    text = one_line(error)
    assert text.startswith(f"{tiny_checkpoint}: ") and named in text


def test_parameters_that_cannot_be_read(tmp_path):
    (tmp_path / "about").mkdir()
    with pytest.raises(UserError) as error:
        store.read_variables(tmp_path, {"params": {"w": jnp.zeros(2)}})
    assert one_line(error).startswith(f"{tmp_path}: ")
