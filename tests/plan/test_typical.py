"""Recorded outputs stand in for those of the network: proposals, scores and gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masktrack_jax.models.masktrack_rcnn import build_model
from masktrack_jax.models.rpn_head import STDS
from masktrack_jax.ops.boxes import decode
from masktrack_jax.plan.programs import example_batch, frame_sizes
from masktrack_jax.plan.typical import (
    ABSENT,
    FILE,
    box_outputs,
    frames,
    instead_of_heads,
    rpn_outputs,
    typical,
)
from tests.goldens.recorded import arrays
from tests.helpers.configs import load_config

BUCKET, SIZE = (384, 640), (360, 640)


def test_proposals_of_the_recorded_network_are_among_the_candidates() -> None:
    model = build_model(load_config("masktrack_r50_fpn_youtubevis2019"), 40)
    anchors = model.anchors(*BUCKET)
    own = jnp.zeros((6, len(anchors.boxes))), jnp.zeros((6, len(anchors.boxes), 4))
    logits, deltas = map(np.asarray, rpn_outputs(model, own, typical(), BUCKET, SIZE))
    recorded = arrays("infer_A_360x640")
    for t in range(6):
        rows = np.flatnonzero(logits[t] > ABSENT)
        rows = rows[np.argsort(-logits[t, rows])]
        found = np.asarray(decode(anchors.boxes[rows], deltas[t, rows], STDS))
        expected = recorded[f"f{t % 3}/proposals"][:, :4]
        if t >= 3:  # mirrored
            x1, y1, x2, y2 = expected.T
            expected = np.stack([640 - x2, y1, 640 - x1, y2], -1)
        distances = np.abs(expected[:, None] - found[None]).max(-1)
        assert distances.min(1).max() < 0.02
        places = distances.argmin(1)  # the recorded ones are sorted by score
        assert np.mean(np.diff(places) > 0) > 0.98
        assert np.all(np.bincount(anchors.levels[rows]) <= [200, 200, 200, 200, 180]) and len(rows) > 950


def test_scores_are_those_of_the_recorded_network() -> None:
    found = typical()
    logits, deltas = box_outputs((jnp.zeros((400, 41)), jnp.zeros((400, 40, 4))), found, 200)
    scores = np.asarray(jax.nn.softmax(logits)).reshape(2, 200, 41)[..., :-1]
    recorded = arrays("infer_A_360x640")
    for t in range(2):
        expected = np.asarray(jax.nn.softmax(recorded[f"f{t}/cls_score"]))[:, :-1]
        assert np.abs(scores[t].max(-1) - expected.max(-1)).max() < 0.03  # only the best classes are kept
        assert (scores[t] > 0.01).sum() == pytest.approx((expected > 0.01).sum(), abs=2)
    assert not deltas.any() and FILE.stat().st_size < 40_000


def test_another_number_of_classes_and_of_proposals_fits() -> None:
    for rows, classes in ((24, 3), (7, 60), (500, 25)):
        own = jnp.zeros((rows, classes + 1)), jnp.zeros((rows, classes, 4))
        outputs = jax.eval_shape(lambda *own: box_outputs(own, typical(), 200), *own)
        assert [x.shape for x in outputs] == [x.shape for x in own]


def test_gradients_stay_those_of_the_network(tiny_config) -> None:
    model, (bucket, size) = build_model(tiny_config, 3), frame_sizes(tiny_config)
    shapes = jax.eval_shape(model.init_variables, jax.random.key(0))
    params = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes["params"]["box_head"])

    def total(head):
        run = nn.apply(lambda m: m.box_head(jnp.ones((2, 7, 7, 16))), model)
        logits, deltas = run({"params": {"box_head": head}})
        return logits.sum() + deltas.sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(params)
    with instead_of_heads(model, typical(), bucket, size):
        replaced, same = jax.jit(jax.value_and_grad(lambda head: total(head)))(params)
    assert replaced != value
    for ours, theirs in zip(jax.tree.leaves(same), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_objects_of_a_training_batch_lie_apart(tiny_config) -> None:
    frame = example_batch(tiny_config, 3, 4).pairs.key
    assert frame.valid.sum() == 4 * 4 and frame.image.shape == (4, 64, 96, 3)
    for boxes in frame.boxes:
        assert np.all(boxes[:, 2:] > boxes[:, :2]) and np.all(boxes <= [96, 64, 96, 64])
        for i in range(4):
            for j in range(i):
                overlap = np.minimum(boxes[i, 2:], boxes[j, 2:]) - np.maximum(boxes[i, :2], boxes[j, :2])
                assert np.any(overlap <= 0)


def test_frames_repeat() -> None:
    found = frames(typical(), 7)
    assert np.array_equal(found.boxes[6], found.boxes[0]) and not np.array_equal(
        found.boxes[3], found.boxes[0]
    )
