"""Videos at the limits of a valid data set: each kind trains one step on its own, and is evaluated."""

import logging
from functools import partial

import jax
import numpy as np
import pytest
from ml_collections import FrozenConfigDict
from pycocotools import mask as coco_mask

from masktrack_jax.data.generate.options import GeneratorOptions
from masktrack_jax.data.generate.write import generate
from masktrack_jax.data.json_files import read_json, write_json
from masktrack_jax.data.options import PairOptions
from masktrack_jax.data.pairs import PairLoader, candidates, warn_of_crowded_frames
from masktrack_jax.data.vis import read_vis
from masktrack_jax.evaluation.score import score
from masktrack_jax.models.masktrack_rcnn import build_model
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.training.schedule import make_optimizer, trainable
from masktrack_jax.training.step import (
    create_train_state,
    guarded,
    on_devices,
    parallel,
    step_batch,
    train_step,
)
from tests.helpers.configs import load_config
from tests.helpers.diagnosis import diagnose

SIZE = (64, 96)
FRAMES = 3


def box(top, left, height, width):
    """The RLE of a rectangle."""
    mask = np.zeros(SIZE, np.uint8, order="F")
    mask[top : top + height, left : left + width] = 1
    return {"size": list(SIZE), "counts": coco_mask.encode(mask)["counts"].decode()}


SMALL, LARGE, DOT, CORNER = box(20, 30, 9, 12), box(2, 3, 50, 70), box(40, 50, 1, 1), box(63, 95, 1, 1)
# By kind of video: its objects as (masks of its frames, whether it is a crowd).
KINDS = {
    "no objects": [],
    "one object": [([SMALL, LARGE, SMALL], False)],
    "one frame only": [([None, SMALL, None], False)],
    "all crowds": [([SMALL] * 3, True), ([LARGE] * 3, True)],
    "crowd beside": [([SMALL] * 3, False), ([LARGE] * 3, True)],
    "too many": [([box(3 * i, 5 * i, 8 + i, 9)] * 3, False) for i in range(9)],
    "dots": [([DOT] * 3, False), ([CORNER] * 3, False)],
    "whole frame": [([box(0, 0, *SIZE)] * 3, False)],
    "twice the same": [([SMALL] * 3, False)] * 2,
}
UNTRAINED = {"no objects", "all crowds"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A video of each kind, and its annotations as JSON."""
    options = GeneratorOptions(videos=len(KINDS), frames=FRAMES, height=SIZE[0], width=SIZE[1], seed=4)
    path = generate(tmp_path_factory.mktemp("odd") / "data", options)
    content = read_json(path)
    content["annotations"] = [
        {"id": 0, "video_id": video["id"], "category_id": 1, "iscrowd": int(crowd), "segmentations": masks}
        for video, objects in zip(content["videos"], KINDS.values())
        for masks, crowd in objects
    ]
    for number, record in enumerate(content["annotations"], start=1):
        record["id"] = number
    write_json(path, content, indent=None)
    return read_vis(path)


@pytest.fixture(scope="module")
def step(dataset):
    """`step(batch)`: state and metrics after one step of configs/tiny.py from the same start."""
    config = load_config("tiny")
    model = build_model(config, len(dataset.categories))
    variables = jax.device_get(model.init_variables(jax.random.key(0)))
    mask = trainable(variables["params"], (), "")
    optimizer = make_optimizer(config.optimizer, 4, mask)
    options = FrozenConfigDict(config.train)
    run = parallel(
        guarded(partial(train_step, model=model, optimizer=optimizer, options=options), "stop"),
        devices=jax.local_devices()[:1],
    )

    def once(samples):
        batch = jax.tree.map(lambda *arrays: np.stack(arrays), *samples)
        state = create_train_state(jax.random.key(1), jax.tree.map(jax.numpy.array, variables), optimizer)
        batch = step_batch(on_devices(batch, jax.local_devices()[:1]), 0)
        with jax.transfer_guard_host_to_device("disallow"):  # everything is on the device already
            return jax.device_get(run(state, batch)[1])

    return once


def pair(dataset, kind, frame=1):
    options = PairOptions.from_config(load_config("tiny").data)
    return PairLoader(dataset, options)(list(KINDS).index(kind), frame, np.random.default_rng(0))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_trains(dataset, step, kind):
    """Frames without objects are never drawn, but would do no harm."""
    sample = pair(dataset, kind)
    metrics = step([sample] * 4)
    assert all(np.isfinite(value) for value in metrics.values()) and metrics["bad"] == 0
    visible = 0 if kind in UNTRAINED else min(sum(not crowd for _, crowd in KINDS[kind]), 4)
    assert sample.key.valid.sum() == visible
    assert (metrics["loss_mask"] > 0) == (metrics["positives"] > 0) == (visible > 0)


def test_only_frames_with_objects_are_drawn(dataset):
    drawn = {list(KINDS)[index] for index, _ in candidates(dataset)}
    assert drawn == KINDS.keys() - UNTRAINED
    assert [frame for index, frame in candidates(dataset) if index == 2] == [1]
    sample = pair(dataset, "one frame only")
    assert sample.provenance[1:3] == (1, 1) and sample.key.targets.matches[0] == 1
    with pytest.raises(UserError, match="nothing to train on"):
        candidates(dataset.only([dataset.videos[list(KINDS).index(kind)] for kind in UNTRAINED]))


def test_more_objects_than_rows_are_counted_and_logged(dataset, caplog):
    options = PairOptions.from_config(load_config("tiny").data)
    with caplog.at_level(logging.WARNING):
        assert warn_of_crowded_frames(dataset, options) == FRAMES
    assert "3 frames hold more than data.max_objects=4 objects; the largest are kept" in caplog.text
    widths = pair(dataset, "too many").key.boxes
    assert sorted(widths[:, 3] - widths[:, 1]) == [13, 14, 15, 16]


@pytest.mark.parametrize("kinds", [*([kind] for kind in KINDS if KINDS[kind]), list(KINDS)], ids=str)
def test_each_kind_is_evaluated(dataset, kinds):
    """With the labels as results every object is found; crowds do not count as objects."""
    content = read_json(dataset.annotations_path)
    ids = {content["videos"][list(KINDS).index(kind)]["id"] for kind in kinds}
    truth = content | {"annotations": [a for a in content["annotations"] if a["video_id"] in ids]}
    results = [
        {key: a[key] for key in ("video_id", "category_id", "segmentations")} | {"score": 0.9}
        for a in truth["annotations"]
    ]
    metrics = score(truth, results)
    assert metrics["AP"] == (None if kinds == ["all crowds"] else pytest.approx(1.0))
    assert diagnose(truth, results).report["AP"] == metrics["AP"]
