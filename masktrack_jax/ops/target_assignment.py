"""Assign candidate boxes to objects and sample them for training, with fixed sizes under jit."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from masktrack_jax.ops.boxes import pairwise_iou


class Assignment(NamedTuple):
    """The object assigned to each candidate. Candidates may be neither positive nor negative."""

    target: Int[Array, " candidates"]  # indices of objects
    positive: Bool[Array, " candidates"]
    negative: Bool[Array, " candidates"]


class Sample(NamedTuple):
    """Candidates drawn for training. Positives come first."""

    rows: Int[Array, " samples"]  # among the candidates
    positive: Bool[Array, " samples"]
    valid: Bool[Array, " samples"]


def assign(
    boxes: Float[Array | np.ndarray, "candidates 4"],
    valid: Bool[Array, " candidates"],
    targets: Float[Array, "objects 4"],
    targets_valid: Bool[Array, " objects"],
    *,
    positive_iou: float,
    negative_iou: float,
    min_positive_iou: float,
    coordinates_first: bool = False,
) -> Assignment:
    """Max-IoU assignment of candidates to objects (mmdet's MaxIoUAssigner).

    A candidate is positive if its best IoU is at least `positive_iou`, and negative if it is below
    `negative_iou`. In addition, the candidates with an object's highest IoU are positive if that IoU is at
    least `min_positive_iou` ("low-quality matches"; if two objects claim a candidate, it is assigned to the
    later one). Without objects every valid candidate is negative. `coordinates_first`: see `pairwise_iou`.
    """
    iou = pairwise_iou(boxes, targets, coordinates_first)
    iou = jnp.where(targets_valid[None] & valid[:, None], iou, -1.0)
    best = jnp.max(iou, axis=1)
    target = jnp.argmax(iou, axis=1)
    claims = (iou == jnp.max(iou, axis=0)[None]) & (iou >= min_positive_iou) & targets_valid[None]
    claimed = jnp.any(claims, axis=1)
    last_claim = targets.shape[0] - 1 - jnp.argmax(claims[:, ::-1], axis=1)
    positive = valid & (claimed | (best >= positive_iou))
    negative = valid & ~positive & (best < negative_iou)
    return Assignment(jnp.where(claimed, last_claim, target).astype(jnp.int32), positive, negative)


def sample(
    priority: Float[Array, " candidates"],
    positive: Bool[Array | np.ndarray, " candidates"],
    negative: Bool[Array | np.ndarray, " candidates"],
    *,
    size: int,
    max_positive: int,
) -> Sample:
    """Sample `size` candidates: up to `max_positive` positives, then negatives.

    Candidates are taken by descending `priority`; uniform noise gives a random sample. If there are fewer
    candidates than `size`, the last slots are invalid. Positives are always in the first `max_positive`
    slots.
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
    rows = jnp.where(is_positive, from_positives, from_negatives)
    return Sample(rows.astype(jnp.int32), is_positive, slot < n_positive + n_negative)
