"""Properties of every tracking loss: finite values and gradients, padding, symmetries, sums of parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masktrack_jax.losses import tracking
from tests.helpers.track_losses import FORMS, loss_of, make_pair


def total(form, key, reference):
    """The loss as a training step computes it: each sum over its count."""
    terms, _ = loss_of(form)(key, reference)
    return sum(value / jnp.maximum(count, 1) for value, count in terms.values())


def gradients(form, key, reference):
    def of(a, b):
        return total(form, key._replace(features=a), reference._replace(features=b))

    return jax.grad(of, (0, 1))(key.features, reference.features)


EMPTY = {
    "nothing": lambda key, reference: (none(key), none(reference)),
    "no key": lambda key, reference: (none(key), reference),
    "no reference": lambda key, reference: (key, none(reference)),
    "all new": lambda key, reference: (key._replace(identity=key.identity + 50), reference),
    "one object": lambda key, reference: tuple(s._replace(identity=0 * s.identity) for s in (key, reference)),
    "all alike": lambda key, reference: tuple(
        s._replace(features=np.ones_like(s.features)) for s in (key, reference)
    ),
    "all zero": lambda key, reference: tuple(
        s._replace(features=np.zeros_like(s.features)) for s in (key, reference)
    ),
    "large": lambda key, reference: tuple(s._replace(features=1e4 * s.features) for s in (key, reference)),
}


def none(samples):
    return samples._replace(positive=0 * samples.positive > 0, valid=0 * samples.valid > 0)


@pytest.mark.parametrize("case", EMPTY)
@pytest.mark.parametrize("form", FORMS)
def test_values_and_gradients_are_finite(form, case):
    pair = EMPTY[case](*make_pair(form))
    terms, scores = loss_of(form)(*pair)
    for value, count in terms.values():
        assert np.isfinite(value) and value >= 0 and count >= 0
        assert value == 0 or case != "nothing"
    assert all(np.all(np.isfinite(g)) for g in gradients(form, *pair))
    right, asked = tracking.accuracy(scores, *pair)
    assert 0 <= right <= asked and (asked == 0 or "no" not in case or form.startswith("softmax"))


@pytest.mark.parametrize("form", FORMS)
def test_padding_counts_for_nothing(form):
    """Padding changes neither values nor gradients, whatever it holds."""
    key, reference = make_pair(form)
    wanted = gradients(form, key, reference)
    # Background of a reference frame is a negative for the quasi-dense loss.
    used = [key.positive, reference.valid if form.startswith("quasi") else reference.positive]
    for gradient, rows in zip(wanted, used):
        assert not np.any(gradient[~rows]) and np.any(gradient[rows])
    noisy = []
    for samples, rows in zip((key, reference), used):
        noisy.append(
            samples._replace(
                features=np.where(rows[..., None], samples.features, 1e8).astype("f4"),
                identity=np.where(rows, samples.identity, 1).astype("i4"),
            )
        )
    assert total(form, *noisy) == total(form, key, reference)
    for ours, theirs in zip(gradients(form, *noisy), wanted):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_by_finite_differences(form):
    key, reference = make_pair(form, 3)
    rng = np.random.default_rng(4)
    directions = [rng.normal(size=s.features.shape).astype("f4") for s in (key, reference)]
    slope = sum(np.vdot(g, d) for g, d in zip(gradients(form, key, reference), directions))

    def moved(step):
        pair = [s._replace(features=s.features + step * d) for s, d in zip((key, reference), directions)]
        return float(total(form, *pair))

    np.testing.assert_allclose((moved(5e-4) - moved(-5e-4)) / 1e-3, slope, rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize(
    "form", [form for form in FORMS if form in ("triplet", "triplet soft", "contrastive")]
)
def test_distances_do_not_see_a_shift(form):
    key, reference = make_pair(form)
    shifted = [s._replace(features=s.features + np.float32([3, -1, 2, 5])) for s in (key, reference)]
    np.testing.assert_allclose(total(form, *shifted), total(form, key, reference), rtol=1e-4)


@pytest.mark.parametrize("form", ["triplet unit", "contrastive unit"])
def test_unit_length_does_not_see_lengths(form):
    key, reference = make_pair(form)
    lengths = np.arange(1, 7, dtype=np.float32)[:, None]
    longer = [s._replace(features=s.features * lengths[: s.features.shape[1]]) for s in (key, reference)]
    np.testing.assert_allclose(total(form, *longer), total(form, key, reference), rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_names_of_objects_and_order_do_not_matter(form):
    key, reference = make_pair(form)
    name = np.random.default_rng(5).permutation(40).astype("i4")
    order = np.random.default_rng(6).permutation(5)
    turned = jax.tree.map(lambda x: x[:, order], key)
    renamed = [s._replace(identity=name[s.identity]) for s in (turned, reference)]
    np.testing.assert_allclose(total(form, *renamed), total(form, key, reference), rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_sums_and_counts_of_parts_add_up(form):
    """So a mean over devices is psum(sum) / psum(count)."""
    key, reference = make_pair(form)
    whole = loss_of(form)(key, reference)[0]
    parts = [
        loss_of(form)(*(jax.tree.map(lambda x, p=p: x[p], s) for s in (key, reference)))[0]
        for p in (slice(0, 2), slice(2, 5))
    ]
    for name, (value, count) in whole.items():
        np.testing.assert_allclose(value, sum(part[name][0] for part in parts), rtol=1e-5)
        assert count == sum(part[name][1] for part in parts)


@pytest.mark.parametrize("form", [form for form in FORMS if not form.startswith("softmax")])
def test_perfect_embeddings_cost_little_and_are_right(form):
    """Every object has a direction of its own. (With the paper's loss new objects always cost something.)"""
    key, reference = make_pair(form)
    directions = 6 * np.eye(20, dtype=np.float32)
    perfect = [
        s._replace(features=np.where(s.positive[..., None], directions[s.identity], directions[19]))
        for s in (key, reference)
    ]
    assert total(form, *perfect) < 1e-3 < total(form, key, reference)
    right, asked = tracking.accuracy(loss_of(form)(*perfect)[1], *perfect)
    assert right == asked > 3
    turned = perfect[0]._replace(features=-perfect[0].features)
    right, asked = tracking.accuracy(loss_of(form)(turned, perfect[1])[1], turned, perfect[1])
    assert right < asked
