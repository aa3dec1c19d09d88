"""The box head against its definition, and its detections against the same pipeline in plain NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masktrack_jax.models import box_head
from masktrack_jax.models.box_head import BoxHead
from tests.helpers.detections import decode_box, greedy_nms
from tests.helpers.networks import apply, dense, randomised, relu, shapes_of


def test_box_head_is_two_layers_and_two_outputs():
    roi = np.random.default_rng(3).normal(size=(4, 7, 7, 3)).astype("f4")
    module = BoxHead(2, features=6, convs=0, norm="none")
    params = randomised(shapes_of(module, roi))["params"]
    x = relu(dense(params, "fc2", relu(dense(params, "fc1", roi.reshape(4, -1)))))
    logits, deltas = apply(module, {"params": params}, roi)
    np.testing.assert_allclose(logits, dense(params, "logits", x), atol=2e-5)
    np.testing.assert_allclose(deltas, dense(params, "deltas", x).reshape(4, 2, 4), atol=2e-5)


# In the third NMS must look beyond the FIRST boxes; in the last these are enough.
PIPELINES = (0.05, 100, 1024), (0.3, 12, 1024), (0.0, 60, 9), (0.0, 9, 40)


@pytest.mark.parametrize("threshold, most, first", PIPELINES)
def test_select_detections_is_the_pipeline(threshold, most, first, monkeypatch):
    monkeypatch.setattr(box_head, "FIRST", first)
    rng = np.random.default_rng(most)
    n, classes, size = 40, 4, (80, 120)
    centres = rng.uniform(20, 60, (n, 2))
    half = rng.uniform(8, 25, (n, 2))
    proposals = np.concatenate([centres - half, centres + half], 1).astype("f4")
    logits = rng.normal(0, 2, (n, classes + 1)).astype("f4")
    deltas = rng.normal(0, 1, (n, classes, 4)).astype("f4")
    valid = rng.random(n) < 0.8
    options = dict(score_threshold=threshold, nms_iou=0.5, max_detections=most, clip_margin=0.0)
    run = jax.jit(partial(box_head.select_detections, **options))
    found = run(*(x[None] for x in (logits, deltas, proposals, valid, np.array(size))))
    boxes, scores, labels, probabilities, exists, cut = (x[0] for x in found)

    e = np.exp(logits.astype(np.float64))
    probability = e / e.sum(1, keepdims=True)
    shifts, places = deltas * [0.1, 0.1, 0.2, 0.2], proposals.astype(np.float64)
    candidates = [
        (probability[i, k], decode_box(places[i], shifts[i, k], size), k, i)
        for i, k in np.ndindex(n, classes)
        if valid[i] and probability[i, k] > threshold
    ]
    kept = greedy_nms(candidates, 0.5)
    assert len(candidates) > len(kept) > 12
    among_first = greedy_nms(sorted(candidates, key=lambda c: -c[0])[: max(first, most)], 0.5)
    assert (first < 1024) == (len(candidates) > max(first, most))
    assert first == 1024 or (len(among_first) > most) == (most == 9)
    wanted, count = kept[:most], min(most, len(kept))
    assert boxes.shape == (min(most, n * classes), 4) and bool(cut) == (len(kept) > most)
    np.testing.assert_array_equal(exists, np.arange(len(exists)) < count)
    np.testing.assert_allclose(scores[:count], [score for score, *_ in wanted], atol=1e-6)
    np.testing.assert_allclose(boxes[:count], [box for _, box, *_ in wanted], atol=1e-4)
    assert labels[:count].tolist() == [k for _, _, k, _ in wanted]
    own = probability[[i for *_, i in wanted], :-1]
    np.testing.assert_allclose(probabilities[:count], own, atol=1e-6)
    assert not np.any(scores[count:])


def test_best_of_classes_looks_further_for_the_images_that_need_it(monkeypatch):
    """The result is that of all boxes, also where the FIRST boxes of one image suppress each other."""
    rng = np.random.default_rng(3)
    boxes = rng.uniform(0, 60, (2, 3, 30, 4)).astype("f4")
    boxes[..., 2:] += boxes[..., :2] + 5
    boxes[0, :, :12] = boxes[0, :, :1]
    scores = rng.permutation(180).reshape(2, 3, 30).astype("f4") / 400
    scores[0, :, :12] += 0.5
    every = box_head.best_of_classes(jnp.asarray(boxes), jnp.asarray(scores), 0.5, 16)
    monkeypatch.setattr(box_head, "FIRST", 20)
    assert [first_are_enough(boxes[i], scores[i], 16) for i in range(2)] == [False, True]
    for some in (slice(None), slice(1), slice(1, 2)):
        arrays = jnp.asarray(boxes[some]), jnp.asarray(scores[some])
        for wanted, got in zip(every, box_head.best_of_classes(*arrays, 0.5, 16)):
            np.testing.assert_array_equal(got, wanted[some])


def first_are_enough(boxes, scores, count):
    """Whether NMS leaves more than `count` of the best FIRST of boxes (K, N, 4)."""
    best = np.argsort(-scores.ravel())[: box_head.FIRST]
    candidates = [(scores.ravel()[i], boxes.reshape(-1, 4)[i], i // scores.shape[1], i) for i in best]
    return len(greedy_nms(candidates, 0.5)) > count


@pytest.mark.parametrize("spare", [0, 1])
def test_best_of_classes_sees_beyond_the_first_whether_there_are_more(spare, monkeypatch):
    """NMS keeps four of the first eight boxes, as many as requested, and `spare` of the others."""
    monkeypatch.setattr(box_head, "FIRST", 8)
    x = np.array([0, 0, 10, 10, 20, 20, 30, 30, 0, 0, 0, 40 * spare], "f4")
    boxes = np.stack([x, 0 * x, x + 6, 0 * x + 6], -1)[None, None]
    scores = np.arange(12, 0, -1, dtype="f4")[None, None]
    with jax.enable_x64(True):  # with indices of any width
        found, places, cut = jax.jit(box_head.best_of_classes, static_argnums=(2, 3))(boxes, scores, 0.5, 4)
    assert found.tolist() == [[12, 10, 8, 6]] and places.tolist() == [[0, 2, 4, 6]]
    assert cut.tolist() == [bool(spare)]
