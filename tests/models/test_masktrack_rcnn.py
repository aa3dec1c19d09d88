"""Proposals and detections against the same pipeline in plain NumPy."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masktrack_jax.models import box_head, rpn_head
from masktrack_jax.models.masktrack_rcnn import Anchors, normalise
from masktrack_jax.ops.anchors import anchor_grid, cell_origins
from tests.ops.test_boxes import iou_of, random_boxes

STRIDES, RATIOS = (4, 8, 16, 32, 64), (0.5, 1.0, 2.0)


def decode(anchor, delta, size):
    """Box of one delta (already times its stds), clipped to `size` = height, width."""
    (ax1, ay1, ax2, ay2), (dx, dy, dw, dh) = anchor, delta
    w, h = ax2 - ax1, ay2 - ay1
    x, y = (ax1 + ax2) / 2 + dx * w, (ay1 + ay2) / 2 + dy * h
    w, h = w * np.exp(dw), h * np.exp(dh)
    x1, x2 = np.clip([x - w / 2, x + w / 2], 0, size[1])
    y1, y2 = np.clip([y - h / 2, y + h / 2], 0, size[0])
    return [x1, y1, x2, y2]


def greedy(candidates, threshold):
    """Of (score, box, …) the kept ones, best first; candidates of another group (third) do not compete."""
    kept = []
    for score, box, group, *rest in sorted(candidates, key=lambda c: -c[0]):
        if all(other[2] != group or iou_of(other[1], box) <= threshold for other in kept):
            kept.append((score, box, group, *rest))
    return kept


@pytest.mark.parametrize("size", [(64, 96), (40, 60), (33, 20)])
def test_propose_is_the_pipeline(size):
    rng = np.random.default_rng(size[0])
    anchors, levels = anchor_grid(64, 96, STRIDES, 4.0, RATIOS)
    logits = rng.normal(size=len(anchors)).astype("f4")
    deltas = rng.normal(0, 0.4, (len(anchors), 4)).astype("f4")
    origins = cell_origins(64, 96, STRIDES, 3)
    padded = [-(-side // 32) * 32 for side in size]
    inside = np.array([y < padded[0] and x < padded[1] for y, x in origins])
    exist = Anchors(anchors, levels, origins).valid(np.array(size))
    np.testing.assert_array_equal(exist, inside)
    assert inside.all() == (padded == [64, 96])

    options = dict(pre_nms=30, post_nms=40, nms_iou=0.7)
    run = jax.jit(partial(rpn_head.propose, anchors=anchors, levels=levels, **options))
    boxes, valid = run(logits, deltas, anchor_valid=exist, image_size=np.array(size))
    candidates = []
    for level in range(5):
        rows = [i for i in np.flatnonzero(levels == level) if inside[i]]
        for i in sorted(rows, key=lambda i: -logits[i])[:30]:
            box = decode(anchors[i].astype(np.float64), deltas[i].astype(np.float64), size)
            if box[2] > box[0] and box[3] > box[1]:
                candidates.append((float(logits[i]), box, level))
    wanted = [box for _, box, _ in greedy(candidates, 0.7)][:40]
    assert boxes.shape == (40, 4) and int(valid.sum()) == len(wanted) > 20
    np.testing.assert_array_equal(valid, np.arange(40) < len(wanted))
    np.testing.assert_allclose(boxes[: len(wanted)], wanted, atol=1e-4)


def test_fewer_proposals_than_asked_for_are_padded():
    anchors, levels = anchor_grid(32, 32, STRIDES, 4.0, RATIOS)
    zeros = np.zeros((len(anchors), 4), "f4")
    exist, size = np.zeros(len(anchors), bool), np.array([32, 32])
    exist[[5, 40]] = True
    options = dict(pre_nms=20, post_nms=30, nms_iou=0.7)
    _, valid = rpn_head.propose(zeros[:, 0], zeros, anchors, levels, exist, size, **options)
    assert valid.tolist() == [True] * 2 + [False] * 28


# The last two: the first are not enough, so that all are looked at; and they are.
PIPELINES = (0.05, 100, 1024), (0.3, 12, 1024), (0, 60, 9), (0, 9, 40)


@pytest.mark.parametrize("threshold, most, first", PIPELINES)
def test_detect_is_the_pipeline(threshold, most, first, monkeypatch):
    monkeypatch.setattr(box_head, "FIRST", first)
    rng = np.random.default_rng(most)
    n, classes, size = 40, 4, (80, 120)
    centres = rng.uniform(20, 60, (n, 2))
    half = rng.uniform(8, 25, (n, 2))
    proposals = np.concatenate([centres - half, centres + half], 1).astype("f4")
    logits = rng.normal(0, 2, (n, classes + 1)).astype("f4")
    deltas = rng.normal(0, 1, (n, classes, 4)).astype("f4")
    valid = rng.random(n) < 0.8
    options = dict(score_threshold=threshold, nms_iou=0.5, max_detections=most)
    run = jax.jit(partial(box_head.detect, **options))
    found = run(*(x[None] for x in (logits, deltas, proposals, valid, np.array(size))))
    boxes, scores, labels, probabilities, exists, cut = (x[0] for x in found)

    e = np.exp(logits.astype(np.float64))
    probability = e / e.sum(1, keepdims=True)
    shifts, places = deltas * [0.1, 0.1, 0.2, 0.2], proposals.astype(np.float64)
    candidates = [
        (probability[i, k], decode(places[i], shifts[i, k], size), k, i)
        for i, k in np.ndindex(n, classes)
        if valid[i] and probability[i, k] > threshold
    ]
    kept = greedy(candidates, 0.5)
    assert len(candidates) > len(kept) > 12
    among_first = greedy(sorted(candidates, key=lambda c: -c[0])[: max(first, most)], 0.5)
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
    """As if all were looked at, where the first boxes of one image hide each other and the other's do not."""
    rng = np.random.default_rng(3)
    boxes = rng.uniform(0, 60, (2, 3, 30, 4)).astype("f4")
    boxes[..., 2:] += boxes[..., :2] + 5
    boxes[0, :, :12] = boxes[0, :, :1]
    scores = rng.permutation(180).reshape(2, 3, 30).astype("f4") / 400
    scores[0, :, :12] += 0.5
    every = box_head.best_of_classes(boxes, scores, 0.5, 16)
    monkeypatch.setattr(box_head, "FIRST", 20)
    assert [first_are_enough(boxes[i], scores[i], 16) for i in range(2)] == [False, True]
    for some in (slice(None), slice(1), slice(1, 2)):
        for wanted, got in zip(every, box_head.best_of_classes(boxes[some], scores[some], 0.5, 16)):
            np.testing.assert_array_equal(got, wanted[some])


def first_are_enough(boxes, scores, count):
    """Whether NMS leaves more than `count` of the best FIRST of boxes (K, N, 4)."""
    best = np.argsort(-scores.ravel())[: box_head.FIRST]
    candidates = [(scores.ravel()[i], boxes.reshape(-1, 4)[i], i // scores.shape[1], i) for i in best]
    return len(greedy(candidates, 0.5)) > count


@pytest.mark.parametrize("spare", [0, 1])
def test_best_of_classes_sees_beyond_the_first_whether_there_are_more(spare, monkeypatch):
    """Four boxes stay of the first eight, as many as asked for, and `spare` beyond."""
    monkeypatch.setattr(box_head, "FIRST", 8)
    x = np.array([0, 0, 10, 10, 20, 20, 30, 30, 0, 0, 0, 40 * spare], "f4")
    boxes = np.stack([x, 0 * x, x + 6, 0 * x + 6], -1)[None, None]
    scores = np.arange(12, 0, -1, dtype="f4")[None, None]
    with jax.enable_x64(True):  # whatever the width of indices
        found, places, cut = jax.jit(box_head.best_of_classes, static_argnums=(2, 3))(boxes, scores, 0.5, 4)
    assert found.tolist() == [[12, 10, 8, 6]] and places.tolist() == [[0, 2, 4, 6]]
    assert cut.tolist() == [bool(spare)]


def test_normalise_takes_rgb_and_clears_the_rest():
    images = np.full((1, 4, 6, 3), (124, 116, 104), np.uint8)
    got = normalise(images, np.array([[3, 5]]))
    wanted = [(124 - 123.675) / 58.395, (116 - 116.28) / 57.12, (104 - 103.53) / 57.375]
    np.testing.assert_allclose(got[0, :3, :5], np.tile(wanted, (3, 5, 1)), atol=1e-6)
    assert not np.any(got[0, 3:]) and not np.any(got[0, :, 5:])


def parts_of_detect(model, images, sizes):
    """Detections, and masks and embeddings computed from them for every class."""
    found = model.detect(images, sizes)
    features = model.features(images, sizes)
    every = [model.mask_logits(features, found.boxes, found.valid, 0 * found.labels + k) for k in range(3)]
    roi = model.pool(features, found.boxes, found.valid, 7)
    return found, jnp.stack(every, -1), model.embed(roi, len(images))


@pytest.fixture(scope="module")
def detect(tiny_model):
    model, variables = tiny_model
    run = jax.jit(lambda *arrays: nn.apply(parts_of_detect, model)(*arrays))
    return lambda images, sizes, v=variables: run(v, images, np.asarray(sizes, np.int32))


def test_detections_are_sorted_inside_and_have_their_own_masks(detect, tiny_images):
    sizes = np.array([[64, 96], [50, 70]])
    found, masks, embeddings = detect(tiny_images, sizes)
    assert found.masks.shape == (2, 8, 28, 28) and found.embeddings.shape == (2, 8, 16)
    assert np.all(found.valid) and len(set(np.asarray(found.labels).ravel().tolist())) > 1
    assert np.all(np.diff(found.scores, axis=1) <= 0) and np.all(found.scores > 0.01)
    assert np.all(found.boxes >= 0) and np.all(found.boxes <= sizes[:, [1, 0, 1, 0]][:, None])
    own = np.take_along_axis(np.asarray(masks), np.asarray(found.labels)[:, :, None, None, None], -1)[..., 0]
    np.testing.assert_allclose(found.masks, 1 / (1 + np.exp(-own)), atol=1e-5)
    np.testing.assert_allclose(found.embeddings, embeddings, atol=1e-5)


def test_what_is_not_valid_is_not_described(tiny_model, tiny_images):
    """Masks and embeddings of any choice of boxes are those of all of them; zero for the others."""
    model, variables = tiny_model
    rng = np.random.default_rng(4)
    boxes = np.stack([random_boxes(rng, 9, 64, 96) for _ in range(2)])
    labels, valid = rng.integers(0, 3, (2, 9)), rng.random((2, 9)) < 0.5

    def all_and_some(model, images, sizes, *arrays):
        features = model.features(images, sizes)
        return [model.describe(features, *arrays, which) for which in (jnp.ones_like(valid), valid)]

    run = jax.jit(nn.apply(all_and_some, model))
    sizes = np.array([[64, 96]] * 2)
    for every, some in zip(*run(variables, tiny_images, sizes, boxes, labels)):
        assert 2 < valid.sum() < 16 and np.all(np.any(every.reshape(18, -1), axis=-1))
        np.testing.assert_allclose(some[valid], every[valid], atol=1e-6)
        assert not np.any(some[~valid])


def test_images_of_a_batch_do_not_meet(detect, tiny_images):
    sizes = np.array([[64, 96], [50, 70]])
    found, *_ = detect(tiny_images, sizes)
    turned, *_ = detect(tiny_images[::-1], sizes[::-1])
    for a, b in zip(found, turned):
        np.testing.assert_allclose(a, b[::-1], atol=1e-5)


def test_what_lies_in_padding_is_not_seen(detect, tiny_images):
    sizes = np.array([[40, 60], [40, 60]])
    other = tiny_images.copy()
    other[:, 40:], other[:, :, 60:] = 255, 7
    for a, b in zip(detect(tiny_images, sizes)[0], detect(other, sizes)[0]):
        np.testing.assert_array_equal(a, b)


def test_nothing_found_is_all_padding(detect, tiny_model, tiny_images):
    _, variables = tiny_model
    bias = variables["params"]["box_head"]["logits"]["bias"]
    silent = jax.tree.map(lambda x: x, variables)
    silent["params"]["box_head"]["logits"]["bias"] = bias + np.array([0, 0, 0, 100.0], "f4")
    found, *_ = detect(np.zeros_like(tiny_images), [[64, 96]] * 2, silent)
    assert not np.any(found.valid) and not np.any(found.scores)
    assert all(np.all(np.isfinite(x)) for x in found)


def test_a_larger_bucket_adds_no_anchors(tiny_model):
    """An image in its own padded size and in a larger bucket: the same anchors exist."""
    model, _ = tiny_model
    for height, width in ((64, 96), (96, 128), (192, 96)):
        own, bucket = model.anchors(height, width), model.anchors(192, 256)
        for size in ((height, width), (height - 31, width - 5)):
            exist = np.asarray(bucket.valid(np.array(size)))
            assert np.all(own.valid(np.array(size)))
            np.testing.assert_array_equal(bucket.boxes[exist], own.boxes)
