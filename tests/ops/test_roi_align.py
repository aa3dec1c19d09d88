"""RoIAlign against a loop written from its definition, recorded numbers of mmcv, and finite differences."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masktrack_jax.ops.roi_align import CHUNK, roi_align, roi_levels
from tests.ops.test_boxes import random_boxes

STRIDES = (4, 8, 16, 32)
HEIGHT, WIDTH = 96, 160
FINEST = 10.0  # so that boxes of these images are of all four levels


def bilinear(feature, y, x):
    """Value (C,) at a point of a map (H, W, C): 0 more than a cell outside, the border's value near it."""
    height, width, _ = feature.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = max(y, 0.0), max(x, 0.0)
    y0, x0 = min(int(y), height - 1), min(int(x), width - 1)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    fy = y - y0 if y1 > y0 else 0.0
    fx = x - x0 if x1 > x0 else 0.0
    top = (1 - fx) * feature[y0, x0] + fx * feature[y0, x1]
    return (1 - fy) * top + fy * ((1 - fx) * feature[y1, x0] + fx * feature[y1, x1])


def slow_roi_align(feature, stride, box, bins, sampling):
    """RoIAlign (P, P, C) of one box on one level: He et al. 2017 with the half-pixel shift of "aligned"."""
    x1, y1, x2, y2 = (float(v) / stride - 0.5 for v in box)
    bin_h, bin_w = (y2 - y1) / bins, (x2 - x1) / bins
    rows = sampling or math.ceil(bin_h)
    columns = sampling or math.ceil(bin_w)
    out = np.zeros((bins, bins, feature.shape[-1]))
    for i in range(bins):
        for j in range(bins):
            for s in range(rows):
                for t in range(columns):
                    y = y1 + (i + (s + 0.5) / rows) * bin_h
                    x = x1 + (j + (t + 0.5) / columns) * bin_w
                    out[i, j] += bilinear(feature, y, x) / (rows * columns)
    return out


def level_of(box, finest_scale, count=4):
    area = float(box[2] - box[0]) * float(box[3] - box[1])
    return min(max(math.floor(math.log2(math.sqrt(area) / finest_scale + 1e-6)), 0), count - 1)


def pyramid(rng, batch=2, channels=3):
    shapes = [(batch, HEIGHT // s, WIDTH // s, channels) for s in STRIDES]
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


def hard_boxes(rng, n):
    """Random boxes, and with them very long, tiny, empty and border-touching ones."""
    special = [
        [0, 40, 160, 43],
        [70, 0, 73, 96],
        [0, 0, 160, 96],
        [20, 20, 20.4, 20.3],
        [0, 0, 1, 1],
        [159.5, 95.5, 160, 96],
        [150, 30, 160, 60],
        [31, 90, 95, 96],
        [50, 50, 50, 70],
        [0, 0, 0, 0],
    ]
    return np.concatenate([np.array(special, np.float32), random_boxes(rng, n, HEIGHT, WIDTH)])[:n]


run = jax.jit(roi_align, static_argnames=("strides", "bins", "finest_scale", "sampling"))


@pytest.mark.parametrize("sampling, bins", [(0, 7), (2, 7), (0, 14)])
def test_roi_align_is_the_definition(sampling, bins):
    rng = np.random.default_rng(bins + sampling)
    batch, n = 3, 25
    features = pyramid(rng, batch)
    boxes = np.stack([hard_boxes(rng, n), hard_boxes(rng, n)[::-1], hard_boxes(rng, n)])
    valid = rng.random((batch, n)) < 0.8
    assert n * batch > CHUNK and (n * batch) % CHUNK  # more than one chunk, the last not full
    got = run(features, STRIDES, boxes, valid, bins=bins, finest_scale=FINEST, sampling=sampling)
    seen = set()
    for b in range(batch):
        for i in range(n):
            if not valid[b, i]:
                assert not np.any(got[b, i])
                continue
            level = level_of(boxes[b, i], FINEST)
            seen.add(level)
            wanted = slow_roi_align(features[level][b], STRIDES[level], boxes[b, i], bins, sampling)
            np.testing.assert_allclose(got[b, i], wanted, atol=3e-5, err_msg=f"{b} {i} {boxes[b, i]}")
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize("n", [1, CHUNK, CHUNK + 1, 16])
def test_the_number_of_boxes_changes_nothing(n):
    rng = np.random.default_rng(5)
    features, boxes = pyramid(rng, batch=1), hard_boxes(rng, 17)[None]
    valid = np.ones((1, 17), bool)
    options = dict(bins=7, finest_scale=FINEST)
    every = run(features, STRIDES, boxes, valid, **options)
    some = run(features, STRIDES, boxes[:, :n], valid[:, :n], **options)
    np.testing.assert_allclose(some, every[:, :n], atol=1e-6)


def test_boxes_read_the_images_they_name():
    rng = np.random.default_rng(6)
    features, boxes = pyramid(rng), hard_boxes(rng, 12)
    images, valid = rng.integers(0, 2, 12).astype("i4"), np.ones((2, 12), bool)
    options = dict(bins=7, finest_scale=FINEST)
    named = run(features, STRIDES, boxes[None], valid[:1], images=images[None], **options)[0]
    own = run(features, STRIDES, np.stack([boxes] * 2), valid, **options)
    assert 0 < images.sum() < 12 and np.any(own[0] != own[1])
    np.testing.assert_array_equal(named, np.take_along_axis(own, images[None, :, None, None, None], 0)[0])


def test_levels_by_size():
    sides = np.array([0, 1, 55, 56, 111.9, 112, 223, 224, 447, 448, 5000], np.float32)
    boxes = np.stack([0 * sides, 0 * sides, sides * 2, sides / 2], -1)
    assert roi_levels(boxes, 4, 56.0).tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3]


def grads_of(features, boxes, valid, weights, bins=7):
    def total(features):
        pooled = roi_align(features, STRIDES, boxes, valid, bins=bins, finest_scale=FINEST)
        return jnp.sum(pooled * weights)

    return jax.jit(jax.value_and_grad(total))(features)


def test_gradient_is_the_transpose():
    """RoIAlign is linear in the features, so ⟨RoIAlign(f), g⟩ = ⟨f, gradient⟩ for every f."""
    rng = np.random.default_rng(7)
    features, other = pyramid(rng), pyramid(rng)
    boxes = np.stack([hard_boxes(rng, 35), hard_boxes(rng, 35)])
    valid = rng.random((2, 35)) < 0.8
    weights = rng.normal(size=(2, 35, 7, 7, 3)).astype(np.float32)
    value, gradient = grads_of(features, boxes, valid, weights)
    assert all(np.any(part) for part in gradient)
    product = sum(np.vdot(np.float64(f), np.float64(g)) for f, g in zip(features, gradient))
    np.testing.assert_allclose(value, product, rtol=1e-4)
    # The same gradient serves other features: it is that of a linear map, not of this one point.
    pooled = run(other, STRIDES, boxes, valid, bins=7, finest_scale=FINEST)
    there = np.vdot(np.float64(pooled), np.float64(weights))
    product = sum(np.vdot(np.float64(f), np.float64(g)) for f, g in zip(other, gradient))
    np.testing.assert_allclose(there, product, rtol=1e-4, atol=1e-3)


def test_gradient_by_differences_of_the_loop():
    """d/df of the slow loop, cell by cell, on one small level."""
    rng = np.random.default_rng(8)
    feature = rng.normal(size=(1, 5, 6, 1)).astype(np.float32)
    boxes = np.array([[[1, 2, 22, 9], [0, 0, 24, 20], [18, 11, 24, 20]]], np.float32)
    weights = rng.normal(size=(1, 3, 2, 2, 1)).astype(np.float32)

    def total(feature):
        return jnp.sum(roi_align((feature,), (4,), boxes, np.ones((1, 3), bool), bins=2) * weights)

    gradient = jax.jit(jax.grad(total))(feature)
    for cell in np.ndindex(5, 6):
        one = np.zeros((5, 6, 1))
        one[cell] = 1
        slow = sum(np.sum(slow_roi_align(one, 4, b, 2, 0) * w) for b, w in zip(boxes[0], weights[0]))
        np.testing.assert_allclose(gradient[0, cell[0], cell[1], 0], slow, atol=1e-6)


def test_no_gradient_reaches_boxes():
    rng = np.random.default_rng(9)
    features, boxes = pyramid(rng, batch=1), random_boxes(rng, 3, HEIGHT, WIDTH)[None]

    def total(boxes):
        return jnp.sum(roi_align(features, STRIDES, boxes, np.ones((1, 3), bool), bins=7))

    assert not np.any(jax.jit(jax.grad(total))(boxes))


def test_bfloat16_rounds_only_input_and_output():
    rng = np.random.default_rng(10)
    features = tuple(jnp.asarray(f, jnp.bfloat16) for f in pyramid(rng))
    boxes, valid = np.stack([hard_boxes(rng, 20)] * 2), np.ones((2, 20), bool)
    options = dict(bins=7, finest_scale=FINEST)
    got = run(features, STRIDES, boxes, valid, **options)
    assert got.dtype == jnp.bfloat16
    exact = run(tuple(f.astype(jnp.float32) for f in features), STRIDES, boxes, valid, **options)
    np.testing.assert_array_equal(got, exact.astype(jnp.bfloat16))

    def total(features):
        return jnp.sum(roi_align(features, STRIDES, boxes, valid, **options).astype(jnp.float32))

    assert all(part.dtype == jnp.bfloat16 for part in jax.jit(jax.grad(total))(features))
