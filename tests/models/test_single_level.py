"""The network without a pyramid, at small width: its shapes, RoI features, training and start."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from masktrack_jax.checkpoints import store
from masktrack_jax.checkpoints.metadata import Metadata
from masktrack_jax.config.base import validate
from masktrack_jax.models.masktrack_rcnn import build_model
from masktrack_jax.models.resnet import frozen_names
from masktrack_jax.ops.roi_align import roi_align
from masktrack_jax.ops.roi_samples import RoIAlignOptions
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.processes import on_local_devices
from masktrack_jax.training import schedule, start
from masktrack_jax.training.step import create_train_state, parallel, train_step
from tests.helpers.configs import load_config
from tests.helpers.interop import quick_initialisation
from tests.helpers.pairs import make_pairs, over_devices


def small():
    """configs/single_level_r50_youtubevis2019.py with the widths and the data of configs/tiny.py."""
    config, tiny = load_config("single_level_r50_youtubevis2019"), load_config("tiny")
    for part in ("backbone", "rpn_head", "proposals", "box_head", "mask_head", "detections"):
        config.model[part].update(tiny.model[part])
    config.model.track_head.features = 16
    config.model.anchors.update({"scale": 0.5, "centre": 0.5})  # objects are 12 to 24 pixels, and few
    for part in ("data", "train", "optimizer", "inference"):
        config[part].update(tiny[part])
    return config


@pytest.fixture(scope="module")
def network():
    model = build_model(small(), 3)
    return model, jax.device_get(model.init_variables(jax.random.key(1)))


def test_the_published_numbers():
    """C5 of a ResNet-50 has 2048 channels; anchors have 32, 64 and 128 pixels; embeddings 256 numbers."""
    config = load_config("single_level_r50_youtubevis2019")
    model = build_model(validate(config), 40)
    params = jax.eval_shape(model.init_variables, jax.random.key(0))["params"]
    assert "fpn" not in params
    assert params["rpn_head"]["conv"]["conv"]["kernel"].shape == (3, 3, 2048, 256)
    assert params["rpn_head"]["logits"]["conv"]["kernel"].shape == (256, 9)
    assert params["box_head"]["fc1"]["kernel"].shape == (49 * 2048, 1024)
    assert params["mask_head"]["conv1"]["conv"]["conv"]["kernel"].shape == (3, 3, 2048, 256)
    assert params["track_head"]["conv"]["conv"]["kernel"].shape == (3, 3, 2048, 256)
    assert params["track_head"]["fc"]["kernel"].shape == (256, 256)
    areas = np.prod(np.diff(np.asarray(model.anchors(384, 640).boxes).reshape(-1, 2, 2), axis=1)[:, 0], -1)
    assert len(areas) == 12 * 20 * 9
    assert sorted({round(float(side)) for side in np.sqrt(areas)}) == [32, 64, 128]


def parts_of_detect(model, images, sizes):
    found = model.detect(images, sizes)
    features = model.features(images, sizes)
    return found, features, model.pool(features, found.boxes, found.valid, 7)


def test_forward(network, tiny_images):
    model, variables = network
    sizes = np.int32([[64, 96], [50, 70]])
    run = jax.jit(functools.partial(model.apply, method=parts_of_detect))
    found, features, pooled = run(variables, tiny_images, sizes)
    assert [x.shape for x in features] == [(2, 2, 3, 64)]
    assert found.masks.shape == (2, 8, 28, 28) and found.embeddings.shape == (2, 8, 16)
    assert found.valid.any() and all(np.all(np.isfinite(x)) for x in found)
    options = RoIAlignOptions(**small().model.roi_align)
    wanted = roi_align(features, (32,), found.boxes, found.valid, options, bins=7)
    np.testing.assert_allclose(pooled.reshape(wanted.shape), wanted, rtol=1e-5, atol=1e-5)
    assert np.any(wanted)


def test_a_few_steps_lower_the_loss(network):
    model, variables = network
    config = small()
    config.optimizer.update({"name": "adamw", "learning_rate": 2e-3})
    optimizer = schedule.make_optimizer(
        config.optimizer, 100, schedule.trainable(variables["params"], frozen_names(1))
    )
    options = FrozenConfigDict(config.train)
    step = functools.partial(train_step, model=model, optimizer=optimizer, options=options)
    run = parallel(step, devices=jax.devices()[:2])
    state = create_train_state(jax.random.key(0), jax.tree.map(jnp.array, variables), optimizer)
    batch = over_devices(make_pairs(np.random.default_rng(0), (3, 0, 1, 2)), 2)
    state, history = on_local_devices(state, jax.devices()[:2]), []
    for _ in range(10):
        state, metrics = jax.block_until_ready(run(state, batch))
        history.append({name: float(value) for name, value in metrics.items()})
    assert all(np.isfinite(value) for row in history for value in row.values())
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    for name in ("rpn_cls", "rpn_box", "cls", "box", "mask", "match"):
        assert history[0][f"loss_{name}"] > 0, (name, history[0])


def test_starting_from_a_network_with_a_pyramid(tiny_model, tmp_path, monkeypatch, capsys):
    """Only its backbone is loaded; the heads read other features and are initialised."""
    quick_initialisation(monkeypatch)
    categories = [(1, "a"), (2, "b"), (3, "c")]
    about = Metadata(load_config("tiny"), categories, 7)
    store.write_variables(tmp_path / "pyramid", tiny_model[1], about)
    config = small()
    config.train.init_from = str(tmp_path / "pyramid")
    fresh = build_model(config, 3).init_variables(jax.random.key(9))
    params = start.start_variables(config, fresh, categories)["params"]
    jax.tree.map(np.testing.assert_array_equal, params["backbone"], tiny_model[1]["params"]["backbone"])
    for part in ("rpn_head", "box_head", "mask_head", "track_head"):
        jax.tree.map(np.testing.assert_array_equal, params[part], fresh["params"][part])
    told = capsys.readouterr().out.splitlines()[0]
    assert "params/rpn_head/conv/conv/kernel" in told and "backbone" not in told
    config.model.backbone.width = 16
    fresh = build_model(config, 3).init_variables(jax.random.key(9))
    with pytest.raises(UserError, match="another architecture"):
        start.start_variables(config, fresh, categories)
