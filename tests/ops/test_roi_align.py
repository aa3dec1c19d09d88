"""RoIAlign against a loop written from its definition, recorded numbers of mmcv, and finite differences."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masktrack_jax.ops import roi_dense, roi_walk
from masktrack_jax.ops.roi_align import roi_align
from masktrack_jax.ops.roi_samples import RoIAlignOptions, place, roi_levels
from tests.helpers.boxes import random_boxes
from tests.helpers.roi_align import slow_roi_align

STRIDES = (4, 8, 16, 32)
HEIGHT, WIDTH = 96, 160
FINEST = 10.0  # so that the boxes of these images cover all four levels
CHUNK = roi_walk.CHUNK
ADAPTIVE = RoIAlignOptions(FINEST, sampling=0, aligned=True, min_size=0.0)
AUTHORS = ADAPTIVE._replace(sampling=2, aligned=False, min_size=1.0)
BEYOND = ADAPTIVE._replace(extent=2.5)


def level_of(box, finest_scale, count=4):
    area = float(box[2] - box[0]) * float(box[3] - box[1])
    return min(max(math.floor(math.log2(math.sqrt(area) / finest_scale + 1e-6)), 0), count - 1)


def pyramid(rng, batch=2, channels=3):
    shapes = [(batch, HEIGHT // s, WIDTH // s, channels) for s in STRIDES]
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


def hard_boxes(rng, n):
    """Random boxes after very long, tiny, empty and border-touching ones."""
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


run = jax.jit(roi_align, static_argnames=("strides", "options", "bins", "form"))
every_form = pytest.mark.parametrize("form", ("walk", "dense"))  # "window": test_roi_window.py


@partial(jax.jit, static_argnames=("form", "options", "strides"))
def pool_and_grad(features, boxes, valid, weights, form, options=ADAPTIVE, strides=STRIDES, images=None):
    """RoI features, and the gradient of their sum with `weights`."""

    def total(features):
        bins = weights.shape[-2]
        out = roi_align(features, strides, boxes, valid, options, bins=bins, images=images, form=form)
        return jnp.sum(out.astype(jnp.float32) * weights), out

    gradient, out = jax.grad(total, has_aux=True)(features)
    return out, gradient


@every_form
@pytest.mark.parametrize("sampling, bins", [(0, 7), (2, 7), (0, 14)])
def test_roi_align_is_the_definition(sampling, bins, form):
    rng = np.random.default_rng(bins + sampling)
    batch, n = 3, 25
    features = pyramid(rng, batch)
    boxes = np.stack([hard_boxes(rng, n), hard_boxes(rng, n)[::-1], hard_boxes(rng, n)])
    valid = rng.random((batch, n)) < 0.8
    assert n * batch > CHUNK and (n * batch) % CHUNK  # more than one chunk, the last not full
    options = ADAPTIVE._replace(sampling=sampling)
    got = run(features, STRIDES, boxes, valid, options, bins=bins, form=form)
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
    every = run(features, STRIDES, boxes, valid, ADAPTIVE, bins=7)
    some = run(features, STRIDES, boxes[:, :n], valid[:, :n], ADAPTIVE, bins=7)
    np.testing.assert_allclose(some, every[:, :n], atol=1e-6)


def test_the_size_of_chunks_changes_nothing(monkeypatch):
    """Chunks of few boxes, the last not full, against one chunk of all boxes."""
    rng = np.random.default_rng(5)
    features, boxes, valid = pyramid(rng), np.stack([hard_boxes(rng, 17)] * 2), rng.random((2, 17)) < 0.9
    placed = place(features, STRIDES, boxes, valid, ADAPTIVE, None)
    walk = jax.jit(partial(roi_walk.pool, bins=7, options=ADAPTIVE), static_argnames="chunk")
    small, whole = (walk(features, placed, chunk=size) for size in (CHUNK, 256))
    np.testing.assert_allclose(whole, small, atol=1e-6)
    weights = rng.normal(size=whole.shape).astype(np.float32)

    def total(features):
        return jnp.sum(roi_dense.pool(features, placed, 7, ADAPTIVE) * weights)

    def gradient(budget):
        monkeypatch.setattr(roi_dense, "BUDGET", budget)
        return jax.jit(lambda features: jax.grad(total)(features))(features)

    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-4), gradient(2**14), gradient(2**28))


@every_form
def test_boxes_read_the_images_they_name(form):
    rng = np.random.default_rng(6)
    features, boxes = pyramid(rng), hard_boxes(rng, 12)
    images, valid = rng.integers(0, 2, 12).astype("i4"), np.ones((2, 12), bool)
    images, boxes = np.stack([images, 1 - images]), np.stack([boxes] * 2)
    named = run(features, STRIDES, boxes, valid, ADAPTIVE, bins=7, images=images, form=form)
    own = run(features, STRIDES, boxes, valid, ADAPTIVE, bins=7)
    assert 0 < images[0].sum() < 12 and np.any(own[0] != own[1])
    np.testing.assert_allclose(named, np.take_along_axis(own, images[..., None, None, None], 0), atol=1e-6)


@pytest.mark.parametrize("options, count", [(AUTHORS, 1), (BEYOND, 4)])
def test_the_dense_form_equals_the_walk(options, count):
    """Forward and gradient, with odd sizes of the levels, for one level and four."""
    rng = np.random.default_rng(11)
    shapes = [(2, 23, 41, 5), (2, 12, 21, 5), (2, 6, 11, 5), (2, 3, 6, 5)][-count:]
    features = tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)
    boxes = np.stack([hard_boxes(rng, 21), hard_boxes(rng, 21)[::-1]])
    if options == BEYOND:
        boxes = boxes * 2.5 - 60  # also beyond all borders
    valid = rng.random((2, 21)) < 0.8
    weights = rng.normal(size=(2, 21, 7, 7, 5)).astype(np.float32)
    inputs, strides = (features, boxes, valid, weights), STRIDES[-count:]
    got, wanted = (pool_and_grad(*inputs, form, options, strides) for form in ("dense", "walk"))
    assert all(np.any(part) for part in (wanted[0], wanted[1][-1]))
    jax.tree.map(partial(np.testing.assert_allclose, atol=2e-5), got, wanted)


def test_levels_by_size():
    sides = np.array([0, 1, 55, 56, 111.9, 112, 223, 224, 447, 448, 5000], np.float32)
    boxes = np.stack([0 * sides, 0 * sides, sides * 2, sides / 2], -1)
    assert roi_levels(boxes, 4, 56.0).tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3]


def test_gradient_is_the_transpose():
    """RoIAlign is linear in the features, so ⟨RoIAlign(f), g⟩ = ⟨f, gradient⟩ for every f."""
    rng = np.random.default_rng(7)
    features, other = pyramid(rng), pyramid(rng)
    boxes = np.stack([hard_boxes(rng, 35), hard_boxes(rng, 35)])
    valid = rng.random((2, 35)) < 0.8
    weights = rng.normal(size=(2, 35, 7, 7, 3)).astype(np.float32)
    pooled, gradient = pool_and_grad(features, boxes, valid, weights, "walk")
    assert all(np.any(part) for part in gradient)
    product = sum(np.vdot(np.float64(f), np.float64(g)) for f, g in zip(features, gradient))
    np.testing.assert_allclose(np.vdot(np.float64(pooled), np.float64(weights)), product, rtol=1e-4)
    # The gradient of a linear map is the same at other features.
    pooled = run(other, STRIDES, boxes, valid, ADAPTIVE, bins=7)
    there = np.vdot(np.float64(pooled), np.float64(weights))
    product = sum(np.vdot(np.float64(f), np.float64(g)) for f, g in zip(other, gradient))
    np.testing.assert_allclose(there, product, rtol=1e-4, atol=1e-3)


@every_form
def test_gradient_by_differences_of_the_loop(form):
    """The gradient equals that of the slow loop, cell by cell, on one small level."""
    rng = np.random.default_rng(8)
    feature = rng.normal(size=(1, 5, 6, 1)).astype(np.float32)
    boxes = np.array([[[1, 2, 22, 9], [0, 0, 24, 20], [18, 11, 24, 20]]], np.float32)
    weights = rng.normal(size=(1, 3, 2, 2, 1)).astype(np.float32)
    valid = np.ones((1, 3), bool)
    _, (gradient,) = pool_and_grad((feature,), boxes, valid, weights, form, ADAPTIVE, (4,))
    for cell in np.ndindex(5, 6):
        one = np.zeros((5, 6, 1))
        one[cell] = 1
        slow = sum(np.sum(slow_roi_align(one, 4, b, 2, 0) * w) for b, w in zip(boxes[0], weights[0]))
        np.testing.assert_allclose(gradient[0, cell[0], cell[1], 0], slow, atol=1e-6)


def test_no_gradient_reaches_boxes():
    rng = np.random.default_rng(9)
    features, boxes = pyramid(rng, batch=1), random_boxes(rng, 3, HEIGHT, WIDTH)[None]

    def total(boxes):
        return jnp.sum(roi_align(features, STRIDES, boxes, np.ones((1, 3), bool), ADAPTIVE, bins=7))

    assert not np.any(jax.jit(jax.grad(total))(boxes))


@every_form
def test_bfloat16_rounds_only_input_and_output(form):
    rng = np.random.default_rng(10)
    features = tuple(jnp.asarray(f, jnp.bfloat16) for f in pyramid(rng))
    wide = tuple(f.astype(jnp.float32) for f in features)
    boxes, valid = np.stack([hard_boxes(rng, 20)] * 2), np.ones((2, 20), bool)
    weights = jnp.asarray(rng.normal(size=(2, 20, 7, 7, 3)), jnp.bfloat16)
    got, gradient = pool_and_grad(features, boxes, valid, weights, form)
    exact, slopes = pool_and_grad(wide, boxes, valid, weights.astype(jnp.float32), form)
    assert got.dtype == jnp.bfloat16 and all(part.dtype == jnp.bfloat16 for part in gradient)
    half = 2.0**-8  # the rounding of an output; sums of products of 16 bits are nearly exact
    for narrow, true in ((got, exact), *zip(gradient, slopes, strict=True)):
        np.testing.assert_allclose(narrow.astype(jnp.float32), true, rtol=half * 1.02, atol=1e-4)
