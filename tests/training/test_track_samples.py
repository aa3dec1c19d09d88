"""Tracking losses in training: which RoIs they compare, steps with each loss and head, a frozen detector."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from benchmarks import frozen
from masktrack_jax.models.masktrack_rcnn import build_model
from masktrack_jax.models.resnet import frozen_names
from masktrack_jax.runtime.processes import on_local_devices
from masktrack_jax.training import schedule
from masktrack_jax.training.objective import pair_losses, pair_rois, sample_keys
from masktrack_jax.training.step import create_train_state, parallel, train_step, without_gradient
from masktrack_jax.training.track_samples import track_terms
from tests.helpers.boxes import iou_of
from tests.helpers.configs import load_config
from tests.helpers.pairs import make_pairs, over_devices


def tiny(loss="softmax", kind="fc", only="track_head"):
    config = load_config("tiny")
    config.model.track_head.kind = kind
    config.train.track.loss = loss
    config.train.track.roi.samples = 16
    config.train.only = only
    config.optimizer.update({"name": "adamw", "learning_rate": 1e-3})
    return config


@functools.cache
def network(kind):
    config = tiny(kind=kind)
    model = build_model(config, 3)
    return model, jax.device_get(model.init_variables(jax.random.key(1)))


def run_steps(config, devices, batches):
    """Parameters before and after, and the metrics of every step."""
    model, variables = network(config.model.track_head.kind)
    mask = schedule.trainable(variables["params"], frozen_names(1), config.train.only)
    optimizer = schedule.make_optimizer(config.optimizer, 100, mask)
    options = FrozenConfigDict(config.train)
    step = functools.partial(train_step, model=model, optimizer=optimizer, options=options)
    run = parallel(step, devices=jax.devices()[:devices])
    state = create_train_state(jax.random.key(0), jax.tree.map(jnp.array, variables), optimizer)
    state, history = on_local_devices(state, jax.devices()[:devices]), []
    for batch in batches:
        state, metrics = jax.block_until_ready(run(state, over_devices(batch, devices)))
        history.append({name: float(value) for name, value in metrics.items()})
    return variables["params"], jax.device_get(state.params), history


@pytest.fixture(scope="module")
def batches():
    rng = np.random.default_rng(0)
    return [make_pairs(rng, (3, 0, 1, 2)), make_pairs(rng, (0, 2, 2, 3))]


def compare(model, pairs, loss):
    """`Samples` of both frames, without the features."""
    options = FrozenConfigDict(tiny(loss).train)
    # The boxes stand for the features, which are not needed.
    boxes_in_place = lambda features, boxes, valid, bins: jnp.tile(  # noqa: E731
        jnp.where(valid[..., None], boxes, 0).reshape(-1, 1, 1, 4), (1, 7, 7, features[0].shape[-1] // 4)
    )

    def run(m, pairs):
        object.__setattr__(m, "pool", boxes_in_place)
        return pair_rois(m, pairs, sample_keys(jax.random.key(2), 4, 0), options)

    variables = network("fc")[1]
    pair = jax.device_get(jax.jit(nn.apply(run, model))(variables, pairs))
    return [s._replace(features=s.features[:, :, 0, 0, :4]) for s in pair]


def key_name(pairs, i, row):
    """The name of an object of a key frame: its row in the reference frame, or its own if it is not there."""
    match = pairs.key.targets.matches[i, row]
    return match - 1 if match else ("key", row)


def reference_name(pairs, i, row):
    return row


def check_identities(pairs, frames, name_of, samples, least):
    """Each positive lies on an object and has its identity; returns the objects' names by identity."""
    names = {}
    for i, n in np.argwhere(samples.positive):
        ious = [
            iou_of(samples.features[i, n], box) if there else -1
            for box, there in zip(frames.boxes[i], frames.valid[i])
        ]
        assert max(ious) >= least - 1e-5
        name = name_of(pairs, i, int(np.argmax(ious)))
        assert names.setdefault((i, int(samples.identity[i, n])), name) == name
    for i, n in np.argwhere(samples.valid & ~samples.positive):
        ious = [
            iou_of(samples.features[i, n], box)
            for box, there in zip(frames.boxes[i], frames.valid[i])
            if there
        ]
        assert not ious or max(ious) < 0.3 + 1e-5
    return names


@pytest.mark.parametrize("loss, least", [("softmax", 0.5), ("quasi_dense", 0.7)])
def test_compared_rois(batches, loss, least):
    pairs = batches[0]
    key, reference = compare(network("fc")[0], pairs, loss)
    ours = check_identities(pairs, pairs.key, key_name, key, least)
    theirs = check_identities(pairs, pairs.reference, reference_name, reference, least)
    assert set(key.valid.sum(1)) != {0} and np.array_equal(key.valid, key.positive)
    for name in ours.keys() & theirs.keys():
        assert ours[name] == theirs[name]  # one number, one object
    common = set(ours.values()) & set(theirs.values())
    assert common and all(isinstance(name, int) for name in common)
    assert any(not isinstance(name, int) for name in ours.values())  # something is new
    # Objects are among the samples: all of the reference frame, those that fit into the key frame's quota.
    for i, row in np.argwhere(pairs.reference.valid):
        mine = reference.positive[i] & (reference.identity[i] == row)
        assert any(np.allclose(box, pairs.reference.boxes[i, row]) for box in reference.features[i][mine])
    background = reference.valid & ~reference.positive
    assert background.any() == (loss == "quasi_dense")


@pytest.mark.parametrize("loss, kind", [("triplet", "fc"), ("contrastive", "conv"), ("quasi_dense", "conv")])
def test_a_head_learns_on_a_frozen_detector(batches, loss, kind):
    before, after, history = run_steps(tiny(loss, kind), 2, batches[:1] * 6)
    assert all(np.isfinite(value) for row in history for value in row.values())
    assert {name for name in history[0] if name.startswith("loss_")} == {"loss_match"} | (
        {"loss_match_cosine"} if loss == "quasi_dense" else set()
    )
    assert history[-1]["loss"] < history[0]["loss"] and history[0]["gradient_norm"] > 0
    assert 0 <= history[0]["match_accuracy"] <= 1 and history[0]["positives"] > 0
    for part in before:
        pairs = list(zip(*map(jax.tree.leaves, (before[part], after[part]))))
        if part == "track_head":  # a shift of all embeddings, by the last bias, changes no distance
            assert all(np.any(a != b) for a, b in pairs if a.ndim > 1)
        else:
            assert all(a.tobytes() == b.tobytes() for a, b in pairs), part


def test_only_some_parts_learn():
    parts = {name: {"w": jnp.ones(2)} for name in ("backbone", "box_head", "track_head")}
    for only, learning in (("", parts.keys()), ("box_head,track_head", {"box_head", "track_head"})):
        mask = schedule.trainable(parts, (), only)
        assert {name for name in mask if mask[name]["w"]} == set(learning)
        flowing = jax.vjp(functools.partial(without_gradient, only=only), parts)[1]
        (gradients,) = flowing(parts)
        assert {name for name in parts if np.any(gradients[name]["w"])} == set(learning)


def test_frozen_parts_cost_no_gradient(batches):
    """The program of a step on the track head alone has a fraction of the operations."""
    model, variables = network("fc")

    def flops(only):
        options = FrozenConfigDict(tiny(only=only).train)
        mask = schedule.trainable(variables["params"], frozen_names(1), only)
        optimizer = schedule.make_optimizer(tiny().optimizer, 100, mask)
        state = create_train_state(jax.random.key(0), variables, optimizer)
        step = functools.partial(train_step, model=model, optimizer=optimizer, options=options)
        mapped = jax.vmap(step, in_axes=(None, 0), out_axes=(None, None), axis_name="data")
        return jax.jit(mapped).lower(state, over_devices(batches[0], 1)).cost_analysis()["flops"]

    assert flops("track_head") < 0.5 * flops("")


def test_all_parts_learn_from_the_quasi_dense_loss_on_any_number_of_devices(batches):
    """RoIs of both frames, both ways, one or two devices; gradients reach the backbone."""
    config = tiny("quasi_dense", "conv", only="")
    both = [
        pairs._replace(reference=pairs.reference._replace(targets=pairs.key.targets)) for pairs in batches
    ]
    runs = [run_steps(config, devices, both) for devices in (1, 2)]
    (before, one, first), (_, two, second) = runs
    for ours, theirs in zip(first, second, strict=True):
        assert ours["loss_match"] > 0 and ours["loss_match_cosine"] > 0 and ours["loss_mask"] > 0
        for name in ours:
            assert ours[name] == pytest.approx(theirs[name], rel=2e-4, abs=1e-6), name
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, two)
    for part in ("backbone", "fpn", "track_head"):
        assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (before[part], one[part]))))


def test_kept_features_give_the_same_loss(batches):
    """The terms from stored RoI features equal those of a step."""
    config = tiny("contrastive")
    model, variables = network("fc")
    kept = jax.device_put(frozen.keep_rois(model, variables, batches[:1], config.train, dtype=np.float32))
    head = functools.partial(model.apply, variables, method=lambda m, roi: m.track_head(roi))
    terms, accuracy = track_terms(head, *kept, config.train.track)
    keys = sample_keys(jax.random.key(0), 4, 0)
    options = FrozenConfigDict(config.train)
    run = nn.apply(functools.partial(pair_losses, keys=keys, options=options), model)
    wanted, extras = jax.jit(run)(variables, batches[0])
    assert wanted.keys() == terms.keys() and terms["match"][0] > 0
    np.testing.assert_allclose(terms["match"], wanted["match"], rtol=1e-5)
    assert tuple(map(int, accuracy)) == tuple(map(int, extras["match_accuracy"]))


def test_a_head_is_fit_to_kept_features(batches):
    config = tiny("quasi_dense", "conv")
    config.optimizer.learning_rate = 3e-3
    model, variables = network("conv")
    kept = frozen.keep_rois(model, variables, batches, config.train)
    assert kept.key.features.shape == (8, 8, 7, 7, 16) and kept.reference.features.shape == (8, 16, 7, 7, 16)
    assert kept.key.features.dtype == np.float16
    params, history = frozen.fit_head(config, kept, steps=60, batch_size=4)
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, variables["params"]["track_head"])
    for name in ("match", "match_cosine"):
        assert history[name][-10:].mean() < 0.7 * history[name][:10].mean()
    again, _ = frozen.fit_head(config, kept, steps=60, batch_size=4)
    jax.tree.map(np.testing.assert_array_equal, params, again)
    other, _ = frozen.fit_head(config, kept, steps=60, batch_size=4, seed=1)
    assert np.any(other["fc"]["kernel"] != params["fc"]["kernel"])
