"""Tracking losses and their accuracy against loops over objects in NumPy, and their published options."""

import itertools

import jax
import numpy as np
import pytest

from masktrack_jax.losses import tracking
from tests.helpers.track_losses import FORMS, TRACK, loss_of, make_pair


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
