"""Losses of the RPN and of the box and mask heads."""

import jax
import jax.numpy as jnp


def sum_valid(values, valid):
    """Sum of the `values` where `valid`."""
    return jnp.sum(jnp.where(valid, values, 0.0))


def binary_cross_entropy(logits, targets):
    """Elementwise, on logits, stable for both signs."""
    return jnp.maximum(logits, 0) - logits * targets + jnp.log1p(jnp.exp(-jnp.abs(logits)))


def cross_entropy(logits, targets):
    """Negative log likelihood (…,) of classes `targets` (…,) under `logits` (…, K)."""
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_probabilities, targets[..., None], axis=-1)[..., 0]


def smooth_l1(difference, beta):
    """Elementwise: quadratic up to `beta`, linear from there on (Girshick 2015); beta 0 is plain L1."""
    distance = jnp.abs(difference)
    if beta == 0:
        return distance
    return jnp.where(distance < beta, 0.5 * distance**2 / beta, distance - 0.5 * beta)


def rpn_losses(logits, deltas, positive, target_deltas, valid, beta=0.0):
    """Objectness and box loss of sampled anchors (…, S); deltas (…, S, 4).

    Both are over the number of sampled anchors; boxes by `smooth_l1` with `beta` on positives (Ren et al.
    2015; mmtracking 0, the authors 1/9).
    """
    count = valid.sum()
    objectness = sum_valid(binary_cross_entropy(logits, positive), valid)
    distance = smooth_l1(deltas - target_deltas, beta).sum(-1)
    return {"rpn_cls": (objectness, count), "rpn_box": (sum_valid(distance, valid & positive), count)}


def box_losses(logits, deltas, labels, positive, target_deltas, valid, beta=0.0):
    """Class and box loss of sampled RoIs: logits (…, S, K + 1), deltas (…, S, K, 4), labels (…, S).

    `labels` are K for background. Both are over the number of sampled RoIs; only the deltas of the RoI's
    own class are compared, by `smooth_l1` with `beta` (Girshick 2015; mmtracking 0, the authors 1).
    """
    count = valid.sum()
    own = jnp.minimum(labels, deltas.shape[-2] - 1)[..., None, None]
    chosen = jnp.take_along_axis(deltas, own, axis=-2)[..., 0, :]
    distance = smooth_l1(chosen - target_deltas, beta).sum(-1)
    classes = sum_valid(cross_entropy(logits, labels), valid)
    return {"cls": (classes, count), "box": (sum_valid(distance, valid & positive), count)}


def mask_loss(logits, targets, valid):
    """Mean binary cross-entropy over the pixels of positive RoIs: logits, targets (…, P, 28, 28)."""
    pixels = logits.shape[-1] * logits.shape[-2]
    per_roi = binary_cross_entropy(logits, targets).sum((-1, -2))
    return {"mask": (sum_valid(per_roi, valid), valid.sum() * pixels)}
