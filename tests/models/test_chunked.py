"""The sizes of chunks, and heads on parts of the boxes against the heads on all boxes at once."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masktrack_jax.models import chunked, forms
from masktrack_jax.models.mask_head import MaskHead
from masktrack_jax.models.track_head import TrackHead
from tests.helpers.networks import randomised, shapes_of


@pytest.mark.parametrize("count", [1, 3, 16, 17, 100, 400, 1000])
def test_chunks_are_few_and_not_tiny(count):
    large, small = chunked.chunk_sizes(count)
    assert min(count, chunked.LEAST_CHUNK) <= small <= large <= count
    assert count // large <= chunked.MOST_CHUNKS
    assert large in (count, chunked.LARGER * small)


def test_chunks_of_the_mask_head_are_no_matter(monkeypatch):
    """Logits of the valid RoIs and gradients, where chunks without a valid RoI are skipped and where not."""
    rng = np.random.default_rng(0)
    roi, labels = jnp.asarray(rng.normal(size=(20, 14, 14, 4)), "f4"), jnp.asarray(rng.integers(3, size=20))
    valid = jnp.asarray(rng.permutation(20) < 6)
    head = MaskHead(3, convs=1, channels=4, norm="none")
    variables = randomised(shapes_of(head, roi, labels))
    run = nn.apply(lambda head: chunked.mask_logits(head, roi, labels, valid), head)
    found = []
    for skipped in (False, True):
        monkeypatch.setattr(chunked, "uses_winograd", lambda *shapes, skipped=skipped: skipped)

        def total(variables):
            logits = jnp.where(valid[:, None, None], run(variables), 0)
            return jnp.sum(jnp.sin(logits)), logits

        program = jax.jit(jax.grad(total, has_aux=True))
        assert ("cond" in str(jax.make_jaxpr(program)(variables))) == skipped
        found.append(program(variables))
    for ours, theirs in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_passes_over_the_best_boxes_describe_every_valid_box():
    """One, two and three passes of two boxes an image, against the chunks of valid boxes of a CPU."""
    rng = np.random.default_rng(1)
    boxes = jnp.asarray(rng.normal(size=(2, 5, 4)), "f4")
    labels = jnp.asarray(rng.integers(3, size=(2, 5)))

    def pool(boxes, valid, bins, images=None):
        """Features that depend on the box and on its image."""
        images = jnp.arange(len(boxes))[:, None] if images is None else images
        each = (boxes.sum(-1) + jnp.where(valid, images, 0)).reshape(-1, 1, 1, 1)
        return jnp.sin(each * jnp.arange(1, 4) + jnp.arange(bins)[:, None] * 0.1) * jnp.ones((bins, 1, 1))

    heads = MaskHead(3, convs=0, channels=3, norm="none"), TrackHead(4, relu_last=False, init_std=0.0)
    sizes = (jnp.zeros((1, 14, 14, 3)), jnp.zeros(1, int)), (jnp.zeros((1, 7, 7, 3)),)
    shapes = [shapes_of(head, *arrays) for head, arrays in zip(heads, sizes)]
    bound = tuple(head.bind(jax.tree.map(jnp.asarray, randomised(some))) for head, some in zip(heads, shapes))

    def program(chosen):
        def describe(valid):
            with forms.use_forms(chosen):
                return chunked.masks_and_embeddings(pool, bound, boxes, labels, valid)

        return jax.jit(describe)

    programs = [program(chosen) for chosen in (forms.GPU._replace(heads_boxes=4), forms.CPU)]
    for counts in ((2, 1), (0, 3), (5, 4), (0, 0)):
        valid = np.arange(5) < np.array(counts)[:, None]
        for got, wanted in zip(*(run(valid) for run in programs), strict=True):
            assert np.array_equal(np.any(wanted.reshape(10, -1), axis=-1), valid.reshape(-1))
            np.testing.assert_allclose(got, wanted, atol=1e-6)
