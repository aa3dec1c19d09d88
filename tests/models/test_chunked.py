"""The sizes of chunks, and the mask head in chunks against the head on all RoIs at once."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masktrack_jax.models import chunked, forms
from masktrack_jax.models.mask_head import MaskHead
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
    found = {}
    for chosen in (forms.CPU, forms.ACCELERATOR):
        monkeypatch.setattr(chunked, "forms", lambda chosen=chosen: chosen)

        def total(variables):
            logits = jnp.where(valid[:, None, None], run(variables), 0)
            return jnp.sum(jnp.sin(logits)), logits

        program = jax.jit(jax.grad(total, has_aux=True))
        assert ("cond" in str(jax.make_jaxpr(program)(variables))) == (chosen is forms.ACCELERATOR)
        found[chosen] = program(variables)
    whole, some = found.values()
    for ours, theirs in zip(jax.tree.leaves(some), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
