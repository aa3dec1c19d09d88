"""Tracking losses against loops over objects in NumPy, and what holds for every one of them."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from masktrack_jax.config.base import base_config
from masktrack_jax.losses import tracking
from masktrack_jax.losses.tracking import Samples

TRACK = FrozenConfigDict(base_config().train.track)


def options(name, **changes):
    return dict(TRACK[name]) | changes


FORMS = {
    "softmax": options("softmax"),
    "softmax over positives": options("softmax", over="positives"),
    "triplet": options("triplet"),
    "triplet soft": options("triplet", soft=True),
    "triplet unit": options("triplet", unit_length=True, margin=0.7),
    "contrastive": options("contrastive", margin=3.0),
    "contrastive unit": options("contrastive", unit_length=True),
    "quasi_dense": options("quasi_dense"),
    "quasi_dense wide": options("quasi_dense", weight=1.0, cosine_margin=0.3, negatives_per_positive=1),
}


def loss_of(form):
    return partial(tracking.LOSSES[form.split(" ")[0]], **FORMS[form])


def make_pair(form, seed=0):
    """Samples of five pairs with embeddings of 4 numbers, 5 in the key and 6 in the reference frame.

    The third pair has no object in common, the fourth no object in the key frame, the fifth nothing at all.
    Softmax has one sample an object in the reference frame, other losses several, and background.
    """
    rng = np.random.default_rng(seed)

    def samples(n, identity, background):
        identity = np.int32(identity)
        positive = (rng.random((5, n)) < 0.75) & (identity >= 0)
        positive[4] = False
        valid = positive | ((rng.random((5, n)) < 0.5) if background else False)
        valid[4] = False
        return Samples(rng.normal(size=(5, n, 4)).astype("f4"), identity, positive, valid)

    key = samples(5, rng.integers(0, 5, (5, 5)), False)
    if form.startswith("softmax"):
        reference = samples(6, np.tile(np.arange(6), (5, 1)), False)
    else:
        reference = samples(6, rng.integers(0, 5, (5, 6)), True)
    key.identity[2] += 10
    key.positive[3] = key.valid[3] = False
    return key, reference


def unit(v):
    return v / np.linalg.norm(v)


def softmax_oracle(key, reference, over):
    total = 0.0
    for i in range(5):
        columns = np.flatnonzero(reference.positive[i])
        losses, matched = [], 0
        for n in np.flatnonzero(key.positive[i]):
            logits = [0.0] + [key.features[i, n] @ reference.features[i, m] for m in columns]
            right = [1 + c for c, m in enumerate(columns) if reference.identity[i, m] == key.identity[i, n]]
            matched += bool(right)
            losses.append(np.log(np.sum(np.exp(logits))) - logits[right[0] if right else 0])
        if over == "matched":
            total += sum(losses) / max(matched, 1)
        elif len(losses) > 1:
            total += sum(losses) / len(losses)
    return {"match": (total, 5)}


def triplet_oracle(key, reference, margin, soft, unit_length):
    total = count = 0
    for i in range(5):
        everything = [
            (unit(x) if unit_length else x, who)
            for s in (key, reference)
            for x, who, on in zip(s.features[i], s.identity[i], s.positive[i])
            if on
        ]
        for at, (a, who) in enumerate(everything):
            rest = everything[:at] + everything[at + 1 :]
            own = [np.linalg.norm(a - x) for x, other in rest if other == who]
            others = [np.linalg.norm(a - x) for x, other in rest if other != who]
            if own and others:
                gap = max(own) - min(others)
                total += np.log1p(np.exp(gap)) if soft else max(margin + gap, 0)
                count += 1
    return {"match": (total, count)}


def contrastive_oracle(key, reference, margin, unit_length):
    total = count = 0
    for i, n, m in np.ndindex(5, 5, 6):
        if key.positive[i, n] and reference.positive[i, m]:
            a, b = key.features[i, n], reference.features[i, m]
            d = np.linalg.norm(unit(a) - unit(b) if unit_length else a - b)
            same = key.identity[i, n] == reference.identity[i, m]
            total += d**2 / 2 if same else max(margin - d, 0) ** 2 / 2
            count += 1
    return {"match": (total, count)}


def quasi_dense_oracle(key, reference, weight, cosine_margin, negatives_per_positive):
    total = auxiliary = 0.0
    for i in range(5):
        losses, attracted, repelled = [], [], []
        for n in np.flatnonzero(key.positive[i]):
            v, own, others = key.features[i, n], [], []
            for m in np.flatnonzero(reference.valid[i]):
                k = reference.features[i, m]
                same = reference.positive[i, m] and reference.identity[i, m] == key.identity[i, n]
                (own if same else others).append(v @ k)
                cosine = unit(v) @ unit(k)
                if same:
                    attracted.append((1 - np.clip(cosine, 0, 1)) ** 2)
                else:
                    repelled.append(np.clip(cosine - cosine_margin, 0, 1) ** 2)
            if own:
                losses.append(np.log(1 + sum(np.exp(b - a) for a in own for b in others)))
        total += weight * np.mean(losses) if losses else 0
        hardest = sorted(repelled, reverse=True)[: negatives_per_positive * len(attracted)]
        used = attracted + hardest
        auxiliary += np.mean(used) if used else 0
    return {"match": (total, 5), "match_cosine": (auxiliary, 5)}


ORACLES = {
    "softmax": softmax_oracle,
    "triplet": triplet_oracle,
    "contrastive": contrastive_oracle,
    "quasi_dense": quasi_dense_oracle,
}


def test_match_logits_are_products_after_a_zero():
    a, b = (np.random.default_rng(5).normal(size=(2, n, 6)).astype("f4") for n in (3, 4))
    got = tracking.match_logits(a, b)
    assert got.shape == (2, 3, 5) and not np.any(got[..., 0])
    for image, i, j in np.ndindex(2, 3, 4):
        np.testing.assert_allclose(got[image, i, 1 + j], a[image, i] @ b[image, j], rtol=1e-4, atol=1e-5)
    assert tracking.match_logits(a[0], b[0, :0]).shape == (3, 1)


def test_every_loss_is_tried():
    assert {form.split(" ")[0] for form in FORMS} == set(tracking.LOSSES) == set(ORACLES)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("form", FORMS)
def test_losses_are_their_formulas(form, seed):
    key, reference = make_pair(form, seed)
    exact = [s._replace(features=np.float64(s.features)) for s in (key, reference)]
    wanted = ORACLES[form.split(" ")[0]](*exact, **FORMS[form])
    got = jax.jit(loss_of(form))(key, reference)[0]
    assert got.keys() == wanted.keys()
    for name, (total, count) in wanted.items():
        assert total > 0
        np.testing.assert_allclose(got[name][0], total, rtol=2e-5, err_msg=name)
        assert int(got[name][1]) == count, name


def test_published_values():
    """The config's defaults are those of the papers and of QDTrack's code."""
    assert TRACK.loss == "softmax"
    assert TRACK.triplet.margin == 0.3 and TRACK.contrastive.margin == 1.0
    assert FORMS["quasi_dense"] == {"weight": 0.25, "cosine_margin": 0.1, "negatives_per_positive": 3}
    roi = TRACK.roi.to_dict()
    assert (roi.pop("samples"), roi.pop("positive_fraction"), roi.pop("negative_iou")) == (256, 0.5, 0.3)
    assert roi == {"positive_iou": 0.7, "min_positive_iou": 0.7}  # no low-quality matches


def total(form, key, reference):
    """The loss as a step takes it: each sum over its count."""
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
    """Neither in the values nor in the gradient, whatever it holds."""
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
    """One direction an object, far from the others. (The paper's loss cannot have it: what is new costs.)"""
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


@pytest.mark.parametrize("form", ["softmax", "triplet", "quasi_dense"])
def test_accuracy_is_a_count(form):
    key, reference = make_pair(form, 7)
    right = asked = 0
    for i, n in itertools.product(range(5), range(5)):
        rows = np.flatnonzero(reference.positive[i])
        own = [m for m in rows if reference.identity[i, m] == key.identity[i, n]]
        if not key.positive[i, n] or (form != "softmax" and not own):
            continue
        a, others = key.features[i, n], reference.features[i]
        score = {m: -np.linalg.norm(a - others[m]) if form == "triplet" else a @ others[m] for m in rows}
        if form == "softmax":
            score[-1] = 0.0
            own = own or [-1]
        asked += 1
        right += max(score, key=score.get) in own
    got = tracking.accuracy(loss_of(form)(key, reference)[1], key, reference)
    assert (int(got[0]), int(got[1])) == (right, asked) and 0 < right < asked
