"""The training step: which parameters it changes, and that neither the numbers of devices and micro-batches
nor rematerialisation change its result."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from masktrack_jax.models import chunked
from masktrack_jax.models.resnet import frozen_names
from masktrack_jax.runtime.processes import on_local_devices
from masktrack_jax.training import schedule
from masktrack_jax.training.objective import sample_keys
from masktrack_jax.training.step import create_train_state, parallel, train_step
from tests.helpers.configs import load_config
from tests.helpers.pairs import make_pairs, over_devices

LOSSES = ("rpn_cls", "rpn_box", "cls", "box", "mask", "match")
FROZEN = frozen_names(1)


class Run:
    """The step of configs/tiny.py on some devices, and its states."""

    def __init__(self, model, variables):
        config = load_config("tiny")
        config.optimizer.weight_decay = 0.01  # strong enough to show where it should not act
        self.variables = jax.device_get(variables)
        mask = schedule.trainable(self.variables["params"], FROZEN)
        self.optimizer = schedule.make_optimizer(config.optimizer, 100, mask)
        self.model, self.options = model, config.train
        self.on = functools.cache(self._on)

    def _on(self, devices, parts, remat):
        options = FrozenConfigDict(self.options.to_dict() | {"accumulate": parts})
        config = FrozenConfigDict(self.model.config.to_dict() | {"remat": remat})
        model = self.model.clone(config=config)
        step = functools.partial(train_step, model=model, optimizer=self.optimizer, options=options)
        return parallel(step, devices=jax.devices()[:devices])

    def state(self, seed=0):
        return create_train_state(
            jax.random.key(seed), jax.tree.map(jnp.array, self.variables), self.optimizer
        )

    def steps(self, devices, batches, seed=0, parts=1, remat=False):
        """Final state and the metrics of every step, each device's share in `parts` micro-batches."""
        state, history = on_local_devices(self.state(seed), jax.devices()[:devices]), []
        for batch in batches:
            run = self.on(devices, parts, remat)
            state, metrics = jax.block_until_ready(run(state, over_devices(batch, devices)))
            history.append({name: float(value) for name, value in metrics.items()})
        return jax.device_get(state._replace(key=jax.random.key_data(state.key))), history


@pytest.fixture(scope="module")
def run(tiny_model):
    return Run(*tiny_model)


@pytest.fixture(scope="module")
def batches():
    """Two batches whose counts differ from image to image."""
    rng = np.random.default_rng(0)
    return [make_pairs(rng, (3, 0, 1, 2)), make_pairs(rng, (0, 2, 2, 3))]


@pytest.fixture(scope="module")
def four(run, batches):
    return run.steps(4, batches)


def is_frozen(path):
    names = [key.key for key in path]
    return names[0] == "backbone" and names[1].startswith(FROZEN)


@pytest.mark.parametrize(
    "devices, parts, remat",
    [(1, 1, False), (1, 4, False), (2, 2, True)],
)
def test_devices_micro_batches_and_remat_do_not_matter(run, batches, four, devices, parts, remat):
    assert_same_steps(run.steps(devices, batches, parts=parts, remat=remat), four)


def test_a_mask_head_that_works_in_chunks_does_not_matter(run, batches, four, monkeypatch):
    """As those of 64 channels and more do on a CPU; here in micro-batches on two devices."""
    asked = []
    monkeypatch.setattr(chunked, "uses_winograd", lambda *shapes: asked.append(shapes) or True)
    assert_same_steps(run.steps(2, batches, parts=2), four)
    assert asked


def assert_same_steps(ours, theirs):
    (state, history), four = ours, theirs
    assert history[0].keys() == four[1][0].keys()
    for ours, theirs in zip(history, four[1]):
        for name in ours:
            assert ours[name] == pytest.approx(theirs[name], rel=2e-4, abs=1e-6), name
    for (path, ours), theirs in zip(
        jax.tree_util.tree_leaves_with_path(state.params), jax.tree.leaves(four[0].params)
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, err_msg=jax.tree_util.keystr(path))


def test_a_step_reports_and_changes_what_it_should(run, four):
    state, history = four
    names = {f"loss_{name}" for name in LOSSES} | {"loss", "gradient_norm"}
    assert names | {"match_accuracy", "cls_accuracy", "positives"} == history[0].keys()
    assert all(np.isfinite(value) for row in history for value in row.values())
    assert all(row[f"loss_{name}"] > 0 for row in history for name in LOSSES)
    assert history[0]["loss"] == pytest.approx(sum(history[0][f"loss_{name}"] for name in LOSSES), rel=1e-5)
    assert int(state.step) == 2
    np.testing.assert_array_equal(state.key, jax.random.key_data(jax.random.key(0)))
    frozen = moved = 0
    before = jax.tree_util.tree_leaves_with_path(run.variables["params"])
    for (path, old), new in zip(before, jax.tree.leaves(state.params)):
        if is_frozen(path):
            np.testing.assert_array_equal(old, new, err_msg=str(path))  # no weight decay either
            frozen += 1
        else:
            moved += bool(np.any(old != new))
            assert np.any(old != new) or not np.any(old), f"{jax.tree_util.keystr(path)} stands still"
    assert frozen == 3 * 5 and moved > 80
    jax.tree.map(np.testing.assert_array_equal, run.variables["batch_stats"], state.batch_stats)


def test_fifteen_steps_on_one_batch_lower_the_loss(run, batches):
    _, history = run.steps(4, batches[:1] * 16)
    first, last = history[0], history[-1]
    assert last["loss"] < 0.7 * first["loss"]
    for name in ("cls", "rpn_cls", "mask"):
        assert last[f"loss_{name}"] < first[f"loss_{name}"], name


@pytest.mark.parametrize("objects", [(0, 0, 0, 0), (1, 0, 0, 0), (1, 1, 1, 1)])
def test_batches_with_few_objects_are_finite(run, objects):
    batch = make_pairs(np.random.default_rng(1), objects)
    state, (first, second) = run.steps(4, [batch, batch])
    assert all(np.isfinite(value) for value in (*first.values(), *second.values()))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state.params))
    for name in ("rpn_box", "box", "mask"):
        assert (first[f"loss_{name}"] > 0) == any(objects)
    assert first["loss_cls"] > 0 and (first["positives"] > 0) == any(objects)


def test_steps_repeat_bit_for_bit_and_seeds_differ(run, batches, four):
    again, history = run.steps(4, batches)
    assert history == four[1]
    jax.tree.map(np.testing.assert_array_equal, again.params, four[0].params)
    _, other = run.steps(4, batches[:1], seed=1)
    assert other[0]["loss"] != history[0]["loss"]


def test_bfloat16_learns_the_same_in_float32_parameters(run, batches, four):
    """Losses agree to its precision; the state and the metrics are float32."""
    config = FrozenConfigDict(run.model.config.to_dict() | {"dtype": "bfloat16"})
    rough = Run(run.model.clone(config=config), run.variables)
    state, history = rough.steps(4, batches[:1])
    kinds = {str(leaf.dtype) for leaf in jax.tree.leaves((state.params, state.opt_state))}
    assert kinds - {"int32"} == {"float32"}
    for name in ("loss", "gradient_norm", *(f"loss_{name}" for name in LOSSES)):
        assert history[0][name] == pytest.approx(four[1][0][name], rel=0.2), name
        assert history[0][name] != four[1][0][name], name
    moved = [np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (state.params, run.variables["params"])))]
    assert sum(moved) > 80


def test_padding_has_no_influence(run, batches, four):
    """Neither pixels below the image nor invalid objects."""
    rng = np.random.default_rng(2)
    pairs = jax.tree.map(np.copy, batches[0])
    (key, reference), targets = pairs, pairs.key.targets
    key.image[:, 60:] = rng.integers(0, 256, key.image[:, 60:].shape)
    reference.image[:, 60:] = 255
    unused = ~key.valid
    key.boxes[unused], targets.labels[unused], targets.masks[unused] = [5, 5, 50, 50], 2, 255
    targets.matches[unused] = 1
    reference.boxes[~reference.valid] = [5, 5, 50, 50]
    _, history = run.steps(4, [pairs])
    assert history[0] == four[1][0]


def test_keys_belong_to_places_in_the_global_batch():
    key = jax.random.key(3)
    every = jax.random.key_data(sample_keys(key, 4, 0))
    assert len({tuple(row) for row in every.tolist()}) == 4
    for devices in (2, 4):
        n = 4 // devices
        parts = [jax.random.key_data(sample_keys(key, n, d * n)) for d in range(devices)]
        np.testing.assert_array_equal(np.concatenate(parts), every)
