"""Which proposal learns from which object, and which proposals are drawn: fixed sizes, under jit."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from masktrack_jax.ops.boxes import pairwise_iou


class Assignment(NamedTuple):
    """`target` (N,) int32: index of the assigned object; `positive`, `negative` (N,) bool."""

    target: jnp.ndarray
    positive: jnp.ndarray
    negative: jnp.ndarray


class Sample(NamedTuple):
    """`index` (S,) int32 into the candidates; `positive`, `valid` (S,) bool. Positives come first."""

    index: jnp.ndarray
    positive: jnp.ndarray
    valid: jnp.ndarray


def assign(boxes, valid, targets, targets_valid, *, positive_iou, negative_iou, min_positive_iou):
    """Max-IoU assignment of candidates `boxes` (N, 4) to objects `targets` (G, 4).

    Positive: best IoU at least `positive_iou`; negative: best IoU below `negative_iou`. Besides, every
    object takes the candidates that share its own best IoU if that is at least `min_positive_iou`
    ("low-quality matches"; where two objects claim a candidate, the later one has it, as in mmdet's
    MaxIoUAssigner). Without objects every valid candidate is negative.
    """
    iou = jnp.where(targets_valid[None] & valid[:, None], pairwise_iou(boxes, targets), -1.0)
    best = jnp.max(iou, axis=1)
    target = jnp.argmax(iou, axis=1)
    claims = (iou == jnp.max(iou, axis=0)[None]) & (iou >= min_positive_iou) & targets_valid[None]
    claimed = jnp.any(claims, axis=1)
    last_claim = targets.shape[0] - 1 - jnp.argmax(claims[:, ::-1], axis=1)
    positive = valid & (claimed | (best >= positive_iou))
    negative = valid & ~positive & (best < negative_iou)
    return Assignment(jnp.where(claimed, last_claim, target).astype(jnp.int32), positive, negative)


def sample(priority, positive, negative, *, size, max_positive):
    """Draw `size` of N candidates: up to `max_positive` positives, negatives for the rest.

    `priority` (N,) orders the candidates, highest first: uniform noise for a random draw. Fewer
    candidates than `size` leave the last slots invalid. A positive always sits in the first
    `max_positive` slots.
    """
    n = priority.shape[0]
    _, positives = lax.top_k(jnp.where(positive, priority, -jnp.inf), min(max_positive, n))
    _, negatives = lax.top_k(jnp.where(negative, priority, -jnp.inf), min(size, n))
    n_positive = jnp.minimum(positive.sum(), max_positive)
    n_negative = jnp.minimum(negative.sum(), size - n_positive)
    slot = jnp.arange(size)
    from_positives = positives[jnp.minimum(slot, len(positives) - 1)]
    from_negatives = negatives[jnp.clip(slot - n_positive, 0, len(negatives) - 1)]
    is_positive = slot < n_positive
    index = jnp.where(is_positive, from_positives, from_negatives)
    return Sample(index.astype(jnp.int32), is_positive, slot < n_positive + n_negative)
