"""The Pallas form of RoIAlign, interpreted on the CPU, against the definition and the dense form."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masktrack_jax.ops import roi_dense, roi_window
from masktrack_jax.ops.roi_samples import RoIAlignOptions, place
from tests.helpers.boxes import random_boxes
from tests.helpers.roi_align import slow_roi_align

STRIDES, BINS = (4, 8), 2
KERNEL = "pallas_call"
OPTIONS = RoIAlignOptions(20.0, sampling=0, aligned=True, min_size=0.0)


def scene(channels=1):
    """Two levels of two images, one wider than a vector, and long, tiny, empty and border boxes."""
    rng = np.random.default_rng(0)
    height, width = 52, 580
    features = [rng.normal(size=(2, height // s, width // s, channels)).astype(np.float32) for s in STRIDES]
    hard = [[0, 20, 580, 23], [70, 0, 73, 52], [20, 20, 20.4, 20.3], [579, 51, 580, 52], [9, 9, 9, 30]]
    boxes = np.concatenate([np.float32(hard), random_boxes(rng, 5, height, width)])
    valid = rng.random((2, 10)) < 0.8
    weights = rng.normal(size=(2, 10, BINS, BINS, channels)).astype(np.float32)
    return tuple(features), np.stack([boxes, boxes[::-1]]), valid, weights


def pool_and_grad(pool, features, boxes, valid, weights, options=OPTIONS, images=None):
    """RoI features, and the gradient of their sum with `weights`."""
    placed = place(features, STRIDES[: len(features)], boxes, valid, options, images)

    def total(features):
        out = pool(features, placed, BINS, options)
        return jnp.sum(out.astype(jnp.float32) * weights), out

    gradient, out = jax.jit(jax.grad(total, has_aux=True))(features)
    return out, gradient


@pytest.fixture(scope="module")
def pooled():
    return pool_and_grad(roi_window.pool, *scene())


def test_window_is_the_definition(pooled):
    features, boxes, valid, _ = scene()
    placed = place(features, STRIDES, boxes, valid, OPTIONS, None)
    assert {0, 1} == set(np.unique(placed.level[valid]))
    for b, i in np.ndindex(valid.shape):
        level = int(placed.level[b, i])
        wanted = slow_roi_align(features[level][b], STRIDES[level], boxes[b, i], BINS, 0)
        np.testing.assert_allclose(pooled[0][b, i], wanted if valid[b, i] else 0, atol=1e-5)


def test_gradient_is_the_dense_forms(pooled):
    _, wanted = pool_and_grad(roi_dense.pool, *scene())
    assert all(np.any(part) for part in wanted)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), pooled[1], wanted)


def test_named_images_tall_levels_and_bfloat16(monkeypatch):
    """With the authors' options, an image without boxes, and half of the channels at a time.

    The weights of cells are not rounded to bfloat16.
    """
    rng = np.random.default_rng(1)
    feature = jnp.asarray(rng.normal(size=(3, 150, 7, 256)), jnp.bfloat16)
    boxes = np.concatenate([[[[2, 0, 20, 600], [0, 590, 28, 600]]], random_boxes(rng, 6, 600, 28)[None]], 1)
    images, valid = np.int32([[2, 0, 0, 2, 0, 2, 2, 0]]), np.ones((1, 8), bool)
    options = OPTIONS._replace(sampling=2, aligned=False, min_size=1.0)
    weights = rng.normal(size=(1, 8, BINS, BINS, 256)).astype(np.float32)
    weights = weights.astype(jnp.bfloat16).astype(np.float32)
    inputs = np.float32(boxes), valid, weights, options, images
    placed = place((feature,), (4,), inputs[0], valid, options, images)
    monkeypatch.setattr(roi_window, "VMEM", 3 * 2**20)
    assert [roi_window.fits((feature,), placed, BINS, gradient=g) for g in (False, True)] == [256, 128]
    got, (slope,) = pool_and_grad(roi_window.pool, (feature,), *inputs)
    assert got.dtype == slope.dtype == jnp.bfloat16
    exact, (wanted,) = pool_and_grad(roi_dense.pool, (feature.astype(jnp.float32),), *inputs)
    half = 2.0**-8  # the rounding of a result
    for narrow, true in ((got, exact), (slope, wanted)):
        np.testing.assert_allclose(narrow.astype(jnp.float32), true, rtol=half * 1.02, atol=1e-4)
    assert np.any(slope[0]) and not np.any(slope[1])


def test_levels_that_do_not_fit_are_pooled_in_the_dense_form(monkeypatch):
    features, boxes, valid, _ = scene(channels=256)
    placed = place(features, STRIDES, boxes, valid, OPTIONS, None)
    assert roi_window.fits(features, placed, BINS) == 256

    def traced():
        pool = jax.make_jaxpr(lambda levels: roi_window.pool(levels, placed, BINS, OPTIONS))
        return str(pool(features))

    assert KERNEL in traced()
    monkeypatch.setattr(roi_window, "VMEM", 3 * 2**20)  # 128 channels of the cells are 1.25 MiB
    assert roi_window.fits(features, placed, BINS) == 128
    assert roi_window.fits(features, placed, BINS, gradient=True) == 0
    monkeypatch.setattr(roi_window, "VMEM", 2**20)
    assert roi_window.fits(features, placed, BINS) == 0 and KERNEL not in traced()
    small = jax.tree.map(lambda x: x[..., :8].astype(np.float16), features)
    assert roi_window.fits(small, placed, BINS) == 0  # a type that the kernel does not know


def test_turns():
    levels = tuple(np.zeros((1, 50 // k, 300 // k, 1), np.float32) for k in (1, 2))
    boxes = np.float32([[[20, 4, 50, 44], [0, 0, 1, 1], [0, 0, 300, 50]]])
    # Columns 20 to 50 (blocks from 16 to 63) and rows 4 to 44; the first cell; all cells, in 3 tiles of 128.
    cases = [(0, 20, 3, 3 * 3), (1, 1, 1, 1), (2, 150 * 3, 19, 19 * 4)]
    options = OPTIONS._replace(finest_scale=400.0)
    turns = jax.jit(lambda valid: roi_window.turns(levels, (4, 8), 4 * boxes, valid, options, bins=2))
    for box, samples, columns, blocks in cases:
        got = turns(np.arange(3)[None] == box)
        assert tuple(map(int, got)) == (1, samples, columns, blocks), box
