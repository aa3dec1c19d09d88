"""Losses of the track head: what embeddings of the objects of two frames should look like.

A loss takes the `Samples` of a key and of a reference frame with embeddings (B, N, E) and (B, M, E), and its
options; it returns its terms {name: (sum, count)} and scores (B, N, M), higher where a key sample and a
reference sample are more alike, with a column for "new" in front if it has one. Samples of different pairs
never meet.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from masktrack_jax.losses.detection import cross_entropy, sum_valid

FAR = 1e9  # a distance, or minus a logit, that loses against every other one and is finite


class Samples(NamedTuple):
    """RoIs of one frame of each pair.

    features: (B, N, E) embeddings; before the head (B, N, 7, 7, C) RoI features
    identity: (B, N) int32, equal for the same object in both frames of a pair; no matter where not positive
    positive: (B, N) bool, on an object
    valid: (B, N) bool, on an object or on background
    """

    features: jnp.ndarray
    identity: jnp.ndarray
    positive: jnp.ndarray
    valid: jnp.ndarray


def same_object(key, reference):
    """(…, N, M) bool: both are on one object."""
    equal = key.identity[..., :, None] == reference.identity[..., None, :]
    return equal & key.positive[..., :, None] & reference.positive[..., None, :]


def unit(x):
    """Vectors (…, E) of length 1; finite, and of finite gradient, for the zero vector."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), 1e-12))


def products(a, b):
    """Dot products (…, N, M) of vectors (…, N, E) and (…, M, E)."""
    return jnp.einsum("...ne,...me->...nm", a, b)


def distances(a, b):
    """Euclidean distances (…, N, M) of vectors (…, N, E) and (…, M, E); gradient 0 where they are equal."""
    square = jnp.sum((a[..., :, None, :] - b[..., None, :, :]) ** 2, axis=-1)
    apart = square > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1.0)), 0.0)


def match_logits(embeddings, references):
    """Logits (…, N, M + 1) of "new object" (0) and of being each of the references.

    `embeddings` (…, N, E), `references` (…, M, E).
    """
    logits = products(embeddings, references)
    return jnp.pad(logits, [(0, 0)] * (logits.ndim - 1) + [(1, 0)])


def match_targets(same):
    """Columns (…, N) of the right logits of `match_logits`, from `same` (…, N, M) of `same_object`."""
    return jnp.where(same.any(-1), 1 + jnp.argmax(same, axis=-1), 0)


def softmax_loss(key, reference, *, over):
    """The paper's (Yang, Fan, Xu 2019, equations 1 and 2): which object of the reference frame, or new?

    Cross-entropy of softmax(0, v·r₁, …, v·r_M) for each key RoI v on an object; one sample r an object in
    the reference frame. `over`: see `match_loss`. Published weight: 1.
    """
    logits = match_logits(key.features, reference.features)
    targets = match_targets(same_object(key, reference))
    return match_loss(logits, targets, key.positive, reference.positive, over), logits


def match_loss(logits, targets, valid, reference_valid, over="matched"):
    """Cross-entropy of "which reference object, or new" for positive RoIs, a mean over images.

    `logits` (B, P, M + 1), column 0 "new"; `targets` (B, P); `reference_valid` (B, M). An image's sum over
    all its positives is divided by the number of those that have a match (`over` "matched", mmtracking's
    RoIEmbedHead), or of all ("positives", the authors'; an image with a single one counts as 0 there).
    """
    exists = jnp.pad(reference_valid, ((0, 0), (1, 0)), constant_values=True)
    masked = jnp.where(exists[:, None], logits, -FAR)
    nll = jnp.where(valid, cross_entropy(masked, targets), 0.0).sum(1)
    positives = valid.sum(1)
    if over == "positives":
        nll, count = jnp.where(positives > 1, nll, 0.0), positives
    else:
        count = (valid & (targets > 0)).sum(1)
    return {"match": (jnp.sum(nll / jnp.maximum(count, 1)), jnp.array(logits.shape[0]))}


def triplet_loss(key, reference, *, margin, soft, unit_length):
    """Batch-hard triplet loss (Hermans, Beyer, Leibe 2017, "In Defense of the Triplet Loss", equation 5).

    [margin + max d(a, p) − min d(a, n)]₊ for each anchor a, over the other samples p of its object and the
    samples n of other objects in either frame; d is the Euclidean distance. A mean over the anchors that
    have both. `soft`: log(1 + exp(max d − min d)) in its place, which needs no margin. `unit_length`: of
    embeddings divided by their lengths, as a tracker by cosine similarity sees them; the paper does not.
    Published: margins of 0.1 to 1 and soft (their followers mostly use 0.3), weight 1.
    """
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=key.positive.ndim - 1), key, reference)
    x = unit(both.features) if unit_length else both.features
    distance = distances(x, x)
    same = same_object(both, both)
    other = both.positive[..., :, None] & both.positive[..., None, :] & ~same
    same &= ~jnp.eye(same.shape[-1], dtype=bool)
    farthest = jnp.max(jnp.where(same, distance, 0.0), axis=-1)
    nearest = jnp.min(jnp.where(other, distance, FAR), axis=-1)
    anchors = same.any(-1) & other.any(-1)
    losses = jax.nn.softplus(farthest - nearest) if soft else jax.nn.relu(margin + farthest - nearest)
    n = key.positive.shape[-1]
    return {"match": (sum_valid(losses, anchors), anchors.sum())}, -distance[..., :n, n:]


def contrastive_loss(key, reference, *, margin, unit_length):
    """Pairwise contrastive loss (Hadsell, Chopra, LeCun 2006, equation 4).

    ½ d² for a key and a reference sample of one object, ½ [margin − d]₊² for two of different objects; d is
    the Euclidean distance. A mean over all pairs of samples on objects. `unit_length`: as in `triplet_loss`.
    Published: margin 1, weight 1.
    """
    x, y = (unit(s.features) if unit_length else s.features for s in (key, reference))
    distance = distances(x, y)
    pairs = key.positive[..., :, None] & reference.positive[..., None, :]
    apart = jax.nn.relu(margin - distance)
    losses = 0.5 * jnp.where(same_object(key, reference), distance, apart) ** 2
    return {"match": (sum_valid(losses, pairs), pairs.sum())}, -distance


def quasi_dense_loss(key, reference, *, weight, cosine_margin, negatives_per_positive):
    """Multi-positive contrastive loss of QDTrack (Pang et al. 2021, section 3.2), also IDOL's.

    log(1 + Σ_k⁺ Σ_k⁻ exp(v·k⁻ − v·k⁺)) for each key RoI v whose object is in the reference frame, over the
    reference samples k⁺ of its object and all others k⁻, background too. A mean over an image's v, then over
    images; published weight 0.25. And `cosine_loss`, of weight 1.
    """
    scores = products(key.features, reference.features)
    same = same_object(key, reference)
    negative = key.positive[..., :, None] & reference.valid[..., None, :] & ~same
    # The double sum is a product of two.
    pulled, pushed = _log_sum_exp(-scores, same), _log_sum_exp(scores, negative)
    losses = weight * jax.nn.softplus(pulled + pushed)
    cosines = products(unit(key.features), unit(reference.features))
    auxiliary = cosine_loss(cosines, same, negative, cosine_margin, negatives_per_positive)
    return {"match": _mean_of_images(losses, same.any(-1), 1)} | auxiliary, scores


def cosine_loss(cosines, same, negative, margin, negatives_per_positive):
    """QDTrack's auxiliary loss (section 3.2): cosines (B, N, M) go to 1 where `same`, to 0 where `negative`.

    (1 − [c]₊)², and [c − margin]₊² of only the largest, `negatives_per_positive` for each `same`. A mean over
    an image's pairs, then over images. Published (their code): margin 0.1, 3 negatives a positive.
    """
    batch = len(cosines)
    attracted = jnp.where(same, (1 - jnp.clip(cosines, 0, 1)) ** 2, 0.0).sum((1, 2))
    repelled = jnp.where(negative, jnp.clip(cosines - margin, 0, 1) ** 2, -1.0).reshape(batch, -1)
    hardest = jnp.sort(repelled, axis=1, descending=True)
    positives = same.sum((1, 2))
    chosen = jnp.minimum(negative.sum((1, 2)), positives * negatives_per_positive)
    used = jnp.arange(hardest.shape[1]) < chosen[:, None]
    total = attracted + jnp.where(used, hardest, 0.0).sum(1)
    return {"match_cosine": (jnp.sum(total / jnp.maximum(positives + chosen, 1)), jnp.array(batch))}


def _mean_of_images(values, valid, axis):
    """(sum over images of the mean of their `values` where `valid`, number of images)."""
    totals = jnp.where(valid, values, 0.0).sum(axis)
    return jnp.sum(totals / jnp.maximum(valid.sum(axis), 1)), jnp.array(len(values))


def _log_sum_exp(x, mask):
    """log Σ exp of x (…, M) where `mask`; −FAR where there is none."""
    return jax.nn.logsumexp(jnp.where(mask, x, -FAR), axis=-1)


LOSSES = {
    "softmax": softmax_loss,
    "triplet": triplet_loss,
    "contrastive": contrastive_loss,
    "quasi_dense": quasi_dense_loss,
}
# The losses that compare RoIs drawn in both frames. The others compare RoIs of the key frame with the objects
# of the reference frame.
OVER_ROIS = ("quasi_dense",)


def accuracy(scores, key, reference):
    """(right, of how many) of a loss's scores: is a key RoI's most similar reference object its own?

    With a column for "new" all RoIs on objects count; without one those whose object is in the reference
    frame, since nothing says what is new.
    """
    same = same_object(key, reference)
    if scores.shape[-1] > same.shape[-1]:
        return match_accuracy(scores, match_targets(same), key.positive, reference.positive)
    best = jnp.argmax(jnp.where(reference.positive[..., None, :], scores, -jnp.inf), axis=-1)
    right = jnp.take_along_axis(same, best[..., None], axis=-1)[..., 0]
    return sum_valid(right, same.any(-1)), same.any(-1).sum()


def match_accuracy(logits, targets, valid, reference_valid):
    """How many positives (and of how many) have their highest logit at the right object or "new"."""
    exists = jnp.pad(reference_valid, ((0, 0), (1, 0)), constant_values=True)
    right = jnp.argmax(jnp.where(exists[:, None], logits, -jnp.inf), axis=-1) == targets
    return sum_valid(right, valid), valid.sum()
