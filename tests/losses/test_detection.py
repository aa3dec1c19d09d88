"""Losses against direct formulas, recorded values of mmtracking, and finite differences."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masktrack_jax.losses import detection, tracking


def softplus_loss(logit, target):
    """-log p of the target under a Bernoulli with this logit, in float64."""
    p = 1 / (1 + np.exp(-np.float64(logit)))
    return -(target * np.log(p) + (1 - target) * np.log1p(-p))


def nll(logits, target):
    logits = np.float64(logits)
    return np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[target]


def value(term):
    total, count = term
    return float(total) / float(count)


def test_stable_for_large_logits():
    logits = np.array([-1000.0, 1000.0, 0.0], np.float32)
    got = detection.binary_cross_entropy(logits, np.array([1.0, 0.0, 1.0]))
    np.testing.assert_allclose(got, [1000, 1000, np.log(2)], rtol=1e-6)


def rpn_case(rng, shape=(2, 9)):
    positive, valid = rng.random(shape) < 0.4, rng.random(shape) < 0.7
    logits = rng.normal(size=shape).astype("f4")
    deltas, wanted = rng.normal(size=(2, *shape, 4)).astype("f4")
    return logits, deltas, positive, wanted, valid


def test_rpn_losses_are_the_formulas():
    logits, deltas, positive, wanted, valid = case = rpn_case(np.random.default_rng(0))
    got = detection.rpn_losses(*case, 0.0)
    assert set(got) == {"rpn_cls", "rpn_box"}
    rows = list(zip(*np.nonzero(valid)))
    np.testing.assert_allclose(
        value(got["rpn_cls"]), np.mean([softplus_loss(logits[r], positive[r]) for r in rows]), rtol=1e-5
    )
    box = sum(np.abs(deltas[r] - wanted[r]).sum() for r in rows if positive[r]) / len(rows)
    np.testing.assert_allclose(value(got["rpn_box"]), box, rtol=1e-5)


def box_case(rng, shape=(2, 8), classes=3):
    labels = rng.integers(classes + 1, size=shape)
    logits = rng.normal(size=(*shape, classes + 1)).astype("f4")
    deltas = rng.normal(size=(*shape, classes, 4)).astype("f4")
    wanted = rng.normal(size=(*shape, 4)).astype("f4")
    return logits, deltas, labels, labels < classes, wanted, rng.random(shape) < 0.7


def test_box_losses_are_the_formulas():
    logits, deltas, labels, positive, wanted, valid = case = box_case(np.random.default_rng(1))
    got = detection.box_losses(*case, 0.0)
    rows = list(zip(*np.nonzero(valid)))
    np.testing.assert_allclose(
        value(got["cls"]), np.mean([nll(logits[r], labels[r]) for r in rows]), rtol=1e-5
    )
    box = sum(np.abs(deltas[r][labels[r]] - wanted[r]).sum() for r in rows if positive[r]) / len(rows)
    np.testing.assert_allclose(value(got["box"]), box, rtol=1e-5)


def test_mask_loss_is_a_mean_over_pixels_of_positives():
    rng = np.random.default_rng(2)
    logits, targets = rng.normal(size=(2, 3, 5, 5)).astype("f4"), rng.integers(2, size=(2, 3, 5, 5))
    valid = np.array([[True, False, True], [False, False, True]])
    wanted = softplus_loss(logits[valid], targets[valid]).mean()
    np.testing.assert_allclose(value(detection.mask_loss(logits, targets, valid)["mask"]), wanted, rtol=1e-5)


@pytest.mark.parametrize("beta", [0.0, 1 / 9, 1.0])
def test_smooth_l1_is_its_formula(beta):
    x = np.linspace(-2, 2, 81).astype("f4")
    wanted = [abs(v) - beta / 2 if abs(v) >= beta else v * v / (2 * beta) for v in np.float64(x)]
    np.testing.assert_allclose(detection.smooth_l1(x, beta), wanted, atol=1e-6)
    _, deltas, positive, wanted, valid = case = rpn_case(np.random.default_rng(3))
    rows = valid & positive
    box = np.asarray(detection.smooth_l1(deltas - wanted, beta))[rows].sum() / valid.sum()
    np.testing.assert_allclose(value(detection.rpn_losses(*case, beta)["rpn_box"]), box, rtol=1e-5)


def test_match_loss_over_positives_leaves_out_an_image_with_a_single_one():
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(3, 4, 3)).astype("f4")
    targets = np.array([[1, 0, 2, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    valid = np.array([[True, True, True, False], [True, False, False, False], [True, True, False, False]])
    everything = np.ones((3, 2), bool)
    first = np.mean([nll(logits[0, i], targets[0, i]) for i in range(3)])
    third = np.mean([nll(logits[2, i], targets[2, i]) for i in range(2)])
    got = tracking.match_loss(logits, targets, valid, everything, "positives")["match"]
    np.testing.assert_allclose(value(got), (first + third) / 3, rtol=1e-6)


def match_case(rng):
    """Three images: some positives matched; positives but none matched; no positive at all."""
    logits = rng.normal(size=(3, 4, 4)).astype("f4") * 2
    targets = np.array([[1, 0, 2, 3], [0, 0, 0, 0], [1, 1, 1, 1]])
    valid = np.array([[True, True, True, False], [True, True, False, False], [False] * 4])
    reference_valid = np.array([[True, True, True], [True, False, False], [True, True, True]])
    return logits, targets, valid, reference_valid


def test_match_loss_has_a_normaliser_for_each_image():
    logits, targets, _, _ = case = match_case(np.random.default_rng(3))
    first = sum(nll(logits[0, r], targets[0, r]) for r in range(3)) / 2  # two of three have a match
    second = sum(nll(logits[1, r, :2], 0) for r in range(2)) / 1  # none has: at least one
    np.testing.assert_allclose(
        value(tracking.match_loss(*case, "matched")["match"]), (first + second) / 3, rtol=1e-5
    )


def test_match_accuracy_counts_positives():
    logits, targets, valid, exists = match_case(np.random.default_rng(4))
    logits[1, :, 2:] = 100  # invalid references win nothing
    right = [np.argmax(logits[0, r]) == targets[0, r] for r in range(3)]
    right += [np.argmax(logits[1, r, :2]) == 0 for r in range(2)]
    got = tracking.match_accuracy(logits, targets, valid, exists)
    assert (int(got[0]), int(got[1])) == (sum(right), 5)


CASES = {
    "rpn": (partial(detection.rpn_losses, beta=0.0), rpn_case, (0, 1, 3), 4),
    "box": (partial(detection.box_losses, beta=0.0), box_case, (0, 1, 4), 5),
    "mask": (
        detection.mask_loss,
        lambda rng: (
            rng.normal(size=(2, 4, 3, 3)).astype("f4"),
            rng.random((2, 4, 3, 3)),
            rng.random((2, 4)) < 0.5,
        ),
        (0, 1),
        2,
    ),
    "match": (partial(tracking.match_loss, over="matched"), match_case, (0,), 2),
}


@pytest.mark.parametrize("name", CASES)
def test_padding_counts_for_nothing(name):
    """Padding changes neither values nor gradients, even where it is huge."""
    loss, make, floats, mask_at = CASES[name]
    case = list(make(np.random.default_rng(5)))
    padding = ~case[mask_at]
    assert padding.any() and not padding.all()

    def total(x, case):
        return sum(total / count for total, count in loss(x, *case[1:]).values())

    gradient = jax.grad(total)(jnp.asarray(case[0]), case)
    assert not np.any(np.asarray(gradient)[padding]) and np.any(gradient)
    changed = list(case)
    for at in floats:
        changed[at] = case[at].copy()
        changed[at][padding] = 1e8
    for key, term in loss(*case).items():
        assert [float(x) for x in loss(*changed)[key]] == [float(x) for x in term]
    np.testing.assert_array_equal(jax.grad(total)(jnp.asarray(changed[0]), changed), gradient)


@pytest.mark.parametrize("name", CASES)
def test_gradients_by_finite_differences(name):
    loss, make, _, _ = CASES[name]
    case = make(np.random.default_rng(6))

    def total(x):
        return sum(total / count for total, count in loss(x, *case[1:]).values())

    x = jnp.asarray(case[0])
    gradient = np.asarray(jax.grad(total)(x))
    direction = np.random.default_rng(7).normal(size=x.shape).astype("f4")
    slope = (total(x + 1e-2 * direction) - total(x - 1e-2 * direction)) / 2e-2
    np.testing.assert_allclose(np.vdot(gradient, direction), slope, rtol=5e-3, atol=1e-4)


def test_losses_of_nothing_are_zero():
    rng = np.random.default_rng(8)
    for loss, make, _, mask_at in CASES.values():
        case = list(make(rng))
        case[mask_at] = np.zeros_like(case[mask_at])
        assert all(float(total) == 0 for total, _ in loss(*case).values())


def test_losses_give_mmtracking_numbers(goldens):
    """From the recorded logits of one pair to its recorded losses."""
    positive = np.arange(64) < len(goldens["rpn_pos_inds"])
    deltas, wanted = np.zeros((2, 64, 4), "f4")
    deltas[positive], wanted[positive] = goldens["rpn_pos_reg"], goldens["rpn_pos_targets"]
    got = detection.rpn_losses(goldens["rpn_sel_logits"], deltas, positive, wanted, np.ones(64, bool), 0.0)
    np.testing.assert_allclose(value(got["rpn_cls"]), goldens["loss/loss_rpn_cls"], rtol=2e-6)
    np.testing.assert_allclose(value(got["rpn_box"]), goldens["loss/loss_rpn_bbox"], rtol=2e-6)

    labels = goldens["roi_labels"]
    positive, everything = labels < 40, np.ones(128, bool)
    deltas = goldens["roi_bbox_pred"].reshape(128, 40, 4)
    got = detection.box_losses(
        goldens["roi_cls_score"], deltas, labels, positive, goldens["roi_bbox_targets"], everything, 0.0
    )
    np.testing.assert_allclose(value(got["cls"]), goldens["loss/loss_cls"], rtol=2e-6)
    np.testing.assert_allclose(value(got["box"]), goldens["loss/loss_bbox"], rtol=2e-6)

    targets = np.unpackbits(goldens["mask_targets_packed"], axis=1).reshape(-1, 28, 28)
    got = detection.mask_loss(goldens["mask_logits_gtclass"], targets, np.ones(32, bool))
    np.testing.assert_allclose(value(got["mask"]), goldens["loss/loss_mask"], rtol=2e-6)

    arguments = (
        goldens["track_sim_logits"][None],
        goldens["track_targets"][None],
        goldens["track_weights"][None] > 0,
        np.ones((1, 3), bool),
    )
    np.testing.assert_allclose(
        value(tracking.match_loss(*arguments, "matched")["match"]), goldens["loss/loss_match"], rtol=2e-6
    )
    right, count = tracking.match_accuracy(*arguments)
    assert float(right) / float(count) == pytest.approx(float(goldens["loss/match_accuracy"]) / 100)
