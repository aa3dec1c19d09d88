"""Losses of the RPN and of the box and mask heads."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

Term = tuple[Shaped[Array, ""], Shaped[Array, ""]]  # (sum, count)


def sum_valid(
    values: Shaped[Array, "*shape"], valid: Bool[Array | np.ndarray, "*shape"]
) -> Shaped[Array, ""]:
    """Sum of the `values` where `valid`."""
    return jnp.sum(jnp.where(valid, values, 0.0))


def binary_cross_entropy(
    logits: Float[Array | np.ndarray, "*shape"], targets: Shaped[Array | np.ndarray, "*shape"]
) -> Float[Array, "*shape"]:
    """Elementwise loss on logits, numerically stable for both signs. Targets are in [0, 1], of any type."""
    return jnp.maximum(logits, 0) - logits * targets + jnp.log1p(jnp.exp(-jnp.abs(logits)))


def cross_entropy(
    logits: Float[Array | np.ndarray, "*shape classes"], targets: Int[Array | np.ndarray, "*shape"]
) -> Float[Array, "*shape"]:
    """The negative log likelihood of the classes `targets`."""
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_probabilities, targets[..., None], axis=-1)[..., 0]


def smooth_l1(difference: Float[Array | np.ndarray, "*shape"], beta: float) -> Float[Array, "*shape"]:
    """Elementwise loss, quadratic up to `beta` and linear beyond (Girshick 2015); `beta` 0 is plain L1."""
    distance = jnp.abs(difference)
    if beta == 0:
        return distance
    return jnp.where(distance < beta, 0.5 * distance**2 / beta, distance - 0.5 * beta)


def rpn_losses(
    logits: Float[Array | np.ndarray, "*samples"],
    deltas: Float[Array | np.ndarray, "*samples 4"],
    positive: Bool[Array | np.ndarray, "*samples"],
    target_deltas: Float[Array | np.ndarray, "*samples 4"],
    valid: Bool[Array | np.ndarray, "*samples"],
    beta: float,
) -> dict[str, Term]:
    """Objectness and box loss of sampled anchors, both divided by the number of samples.

    The box loss of positives is `smooth_l1` with `beta` (Ren et al. 2015; 0 in mmtracking, 1/9 in the
    authors' code).
    """
    count = jnp.sum(valid)
    objectness = sum_valid(binary_cross_entropy(logits, positive), valid)
    distance = smooth_l1(deltas - target_deltas, beta).sum(-1)
    return {"rpn_cls": (objectness, count), "rpn_box": (sum_valid(distance, valid & positive), count)}


def box_losses(
    logits: Float[Array | np.ndarray, "*samples _logits"],
    deltas: Float[Array | np.ndarray, "*samples classes 4"],
    labels: Int[Array | np.ndarray, "*samples"],
    positive: Bool[Array | np.ndarray, "*samples"],
    target_deltas: Float[Array | np.ndarray, "*samples 4"],
    valid: Bool[Array | np.ndarray, "*samples"],
    beta: float,
) -> dict[str, Term]:
    """Class and box loss of sampled RoIs, both divided by the number of samples.

    The label of background is the number of classes. The box loss uses only the deltas of the RoI's own
    class; it is `smooth_l1` with `beta` (Girshick 2015; 0 in mmtracking, 1 in the authors' code).
    """
    count = jnp.sum(valid)
    own = jnp.minimum(labels, deltas.shape[-2] - 1)[..., None, None]
    chosen = jnp.take_along_axis(deltas, own, axis=-2)[..., 0, :]
    distance = smooth_l1(chosen - target_deltas, beta).sum(-1)
    classes = sum_valid(cross_entropy(logits, labels), valid)
    return {"cls": (classes, count), "box": (sum_valid(distance, valid & positive), count)}


def mask_loss(
    logits: Float[Array | np.ndarray, "*rois height width"],
    targets: Shaped[Array | np.ndarray, "*rois height width"],
    valid: Bool[Array | np.ndarray, "*rois"],
) -> dict[str, Term]:
    """Mean binary cross-entropy over the pixels of valid RoIs."""
    pixels = logits.shape[-1] * logits.shape[-2]
    per_roi = binary_cross_entropy(logits, targets).sum((-1, -2))
    return {"mask": (sum_valid(per_roi, valid), jnp.sum(valid) * pixels)}
