"""The whole network, tiny: its detections against its parts, and inputs that must not influence them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masktrack_jax.models.masktrack_rcnn import normalise
from tests.helpers.boxes import random_boxes


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


def test_what_is_not_valid_gets_no_mask_and_embedding(tiny_model, tiny_images):
    """Valid boxes get the same masks and embeddings whichever others are valid; invalid boxes get zeros."""
    model, variables = tiny_model
    rng = np.random.default_rng(4)
    boxes = np.stack([random_boxes(rng, 9, 64, 96) for _ in range(2)])
    labels, valid = rng.integers(0, 3, (2, 9)), rng.random((2, 9)) < 0.5

    def all_and_some(model, images, sizes, *arrays):
        features = model.features(images, sizes)
        choices = jnp.ones_like(valid), jnp.asarray(valid)
        return [model.masks_and_embeddings(features, *arrays, which) for which in choices]

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
