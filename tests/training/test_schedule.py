"""Learning rates and optimisers against formulas and a hand-written SGD."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from masktrack_jax.config.base import base_config
from masktrack_jax.models.resnet import frozen_names
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.training.schedule import learning_rate, make_optimizer, trainable


def options_with(**changes):
    options = base_config().optimizer
    options.update(changes)
    return options


def test_steps_with_warm_up():
    """The reference's: from a third linearly over 500 steps, a tenth after epochs 8 and 11 of 12."""
    rate = learning_rate(options_with(learning_rate=0.3, warmup_steps=500), 12 * 700)
    for step in (0, 1, 250, 499, 500, 501, 5599, 5600, 7699, 7700, 8399):
        warm = min(1, 1 / 3 + (2 / 3) * step / 500)
        decay = 1 if step < 5600 else 0.1 if step < 7700 else 0.01
        assert float(rate(step)) == pytest.approx(0.3 * warm * decay, rel=1e-5), step


def test_cosine_with_warm_up():
    rate = learning_rate(options_with(learning_rate=0.2, schedule="cosine", warmup_steps=10), 100)
    for step in (0, 5, 10, 50, 99, 100):
        warm = min(1, 1 / 3 + (2 / 3) * step / 10)
        wanted = 0.2 * warm * (1 + math.cos(math.pi * step / 100)) / 2
        assert float(rate(step)) == pytest.approx(wanted, abs=1e-7), step


def test_no_warm_up():
    assert float(learning_rate(options_with(warmup_steps=0, learning_rate=0.1), 100)(1)) == pytest.approx(0.1)


@pytest.mark.parametrize("change", [{"schedule": "linear"}, {"name": "adam"}])
def test_unknown_choices_are_named(change):
    (key,) = change
    with pytest.raises(UserError, match=rf"config\.optimizer\.{key} is '{change[key]}'"):
        make_optimizer(options_with(**change), 10, {"w": True})


PARAMS = {
    "backbone": {
        "stem": {"w": np.float32([[1.0, -2.0]])},
        "stage1_block1": {"w": np.float32([3.0])},
        "stage2_block1": {"w": np.float32([[0.5, 2.0], [1.0, -1.0]])},
    },
    "stem": {"b": np.float32([0.3])},  # the name alone does not freeze
}


def descend(options, steps, scale):
    """Parameters after some steps, and the gradients of each, `scale` large."""
    optimizer = make_optimizer(options, 12, trainable(PARAMS, frozen_names(1)))
    rng, params = np.random.default_rng(0), jax.tree.map(jnp.asarray, PARAMS)
    state, history = optimizer.init(params), []
    for _ in range(steps):
        history.append(jax.tree.map(lambda p: (scale * rng.normal(size=p.shape)).astype("f4"), PARAMS))
        updates, state = optimizer.update(history[-1], state, params)
        params = optax.apply_updates(params, updates)
    return params, history


def assert_frozen(params):
    for name in ("stem", "stage1_block1"):
        np.testing.assert_array_equal(params["backbone"][name]["w"], PARAMS["backbone"][name]["w"])


def trained(tree):
    return [np.float64(tree["backbone"]["stage2_block1"]["w"]), np.float64(tree["stem"]["b"])]


@pytest.mark.parametrize("scale", [0.1, 100.0])  # without clipping, with it
def test_sgd_is_pytorchs(scale):
    """d = clipped gradient + decay · p; m = momentum · m + d; p -= rate · m."""
    options = options_with(learning_rate=0.1, weight_decay=0.05, warmup_steps=3, clip_norm=2.0)
    params, history = descend(options, 10, scale)
    rate = learning_rate(options, 12)
    values, momenta, clipped = trained(PARAMS), [0.0, 0.0], 0
    for step, gradients in enumerate(map(trained, history)):
        norm = math.sqrt(sum(np.sum(g**2) for g in gradients))  # frozen parameters have no part in it
        clipped += norm > 2
        for i, g in enumerate(gradients):
            d = g * min(1, 2 / norm) + 0.05 * values[i]
            momenta[i] = 0.9 * momenta[i] + d
            values[i] = values[i] - float(rate(step)) * momenta[i]
    assert clipped == (10 if scale > 1 else 0)
    for ours, wanted in zip(trained(params), values):
        np.testing.assert_allclose(ours, wanted, rtol=2e-5)
    assert_frozen(params)


def test_adamw_decays_matrices_only():
    options = options_with(name="adamw", learning_rate=0.1, weight_decay=0.5, warmup_steps=0, clip_norm=1e9)
    params, history = descend(options, 3, 1.0)
    values = trained(PARAMS)
    first, second = [0.0, 0.0], [0.0, 0.0]
    for step, gradients in enumerate(map(trained, history), start=1):
        rate = float(learning_rate(options, 12)(step - 1))
        for i, g in enumerate(gradients):
            first[i] = 0.9 * first[i] + 0.1 * g
            second[i] = 0.999 * second[i] + 0.001 * g**2
            update = first[i] / (1 - 0.9**step) / (np.sqrt(second[i] / (1 - 0.999**step)) + 1e-8)
            values[i] = values[i] - rate * (update + (0.5 if g.ndim > 1 else 0) * values[i])
    for ours, wanted in zip(trained(params), values):
        np.testing.assert_allclose(ours, wanted, rtol=2e-5)
    assert_frozen(params)


def test_nothing_is_frozen_without_frozen_stages():
    assert all(jax.tree.leaves(trainable(PARAMS, frozen_names(0))))
