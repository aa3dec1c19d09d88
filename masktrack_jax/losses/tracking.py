"""Losses of the track head, on the embeddings of RoIs in a key and a reference frame.

A loss takes the `Samples` of both frames, with embeddings, and its options. It returns a `TrackLoss`. Samples
of different pairs are never compared.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from masktrack_jax.losses.detection import Term, cross_entropy, sum_valid

FAR = 1e9  # a finite distance, or minus a logit, beyond all real ones


class Samples(NamedTuple):
    """RoIs of one frame of each pair."""

    features: Float[
        Array, "pairs samples embedding"
    ]  # before the track head: RoI features (pairs, samples, 7, 7, C)
    identity: Int[
        Array, "pairs samples"
    ]  # the same for an object in both frames; arbitrary where not positive
    positive: Bool[Array, "pairs samples"]  # on an object
    valid: Bool[Array, "pairs samples"]  # on an object or on background


class TrackLoss(NamedTuple):
    """Terms of a loss by name, and scores, which are higher for more similar key and reference samples."""

    terms: dict[str, Term]
    scores: Float[Array, "pairs key reference"]  # or with a first column for "new object"


def same_object(key: Samples, reference: Samples) -> Bool[Array, "pairs key reference"]:
    """Whether a key and a reference sample are on the same object."""
    equal = key.identity[..., :, None] == reference.identity[..., None, :]
    return jnp.asarray(equal & key.positive[..., :, None] & reference.positive[..., None, :])


def unit(x: Float[Array | np.ndarray, "*samples embedding"]) -> Float[Array, "*samples embedding"]:
    """Scale vectors to length 1; for the zero vector, value and gradient are finite."""
    x = jnp.asarray(x)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), 1e-12))


def products(
    a: Float[Array | np.ndarray, "*pairs n embedding"], b: Float[Array | np.ndarray, "*pairs m embedding"]
) -> Float[Array, "*pairs n m"]:
    """Dot products of every vector of `a` with every vector of `b`."""
    return jnp.einsum("...ne,...me->...nm", a, b)


def distances(
    a: Float[Array | np.ndarray, "*pairs n embedding"], b: Float[Array | np.ndarray, "*pairs m embedding"]
) -> Float[Array, "*pairs n m"]:
    """Euclidean distances of every vector of `a` to every vector of `b`; the gradient is 0 at distance 0."""
    square = jnp.sum((a[..., :, None, :] - b[..., None, :, :]) ** 2, axis=-1)
    apart = square > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1.0)), 0.0)


def match_logits(
    embeddings: Float[Array | np.ndarray, "*pairs n embedding"],
    references: Float[Array | np.ndarray, "*pairs m embedding"],
) -> Float[Array, "*pairs n m+1"]:
    """Logits of "new object", which is 0, and of each reference."""
    logits = products(embeddings, references)
    return jnp.pad(logits, [(0, 0)] * (logits.ndim - 1) + [(1, 0)])


def match_targets(same: Bool[Array, "pairs key reference"]) -> Int[Array, "pairs key"]:
    """The correct column of `match_logits` for each key sample, from the result of `same_object`."""
    return jnp.where(same.any(-1), 1 + jnp.argmax(same, axis=-1), 0)


def softmax_loss(key: Samples, reference: Samples, *, over: str) -> TrackLoss:
    """The paper's loss (Yang, Fan, Xu 2019, equations 1 and 2): is a key RoI a reference object or new?

    Cross-entropy of softmax(0, v·r₁, …, v·r_M) for each key RoI v on an object. Each object of the reference
    frame has one sample r. `over`: see `match_loss`. Published weight: 1.
    """
    logits = match_logits(key.features, reference.features)
    targets = match_targets(same_object(key, reference))
    return TrackLoss(match_loss(logits, targets, key.positive, reference.positive, over), logits)


def match_loss(
    logits: Float[Array | np.ndarray, "pairs rois columns"],
    targets: Int[Array | np.ndarray, "pairs rois"],
    valid: Bool[Array | np.ndarray, "pairs rois"],
    reference_valid: Bool[Array | np.ndarray, "pairs objects"],
    over: str,
) -> dict[str, Term]:
    """Cross-entropy of valid RoIs over "new" (column 0) and the reference objects, a mean over images.

    The sum over an image's RoIs is divided by the number of RoIs that have a match (`over` "matched", as in
    mmtracking's RoIEmbedHead), or by the number of all its RoIs ("positives", as in the authors' code, where
    the loss of an image with a single RoI is 0).
    """
    exists = jnp.pad(reference_valid, ((0, 0), (1, 0)), constant_values=True)
    masked = jnp.where(exists[:, None], logits, -FAR)
    nll = jnp.where(valid, cross_entropy(masked, targets), 0.0).sum(1)
    positives = jnp.sum(valid, 1)
    if over == "positives":
        nll, count = jnp.where(positives > 1, nll, 0.0), positives
    else:
        count = (valid & (targets > 0)).sum(1)
    return {"match": (jnp.sum(nll / jnp.maximum(count, 1)), jnp.array(logits.shape[0]))}


def triplet_loss(
    key: Samples, reference: Samples, *, margin: float, soft: bool, unit_length: bool
) -> TrackLoss:
    """Batch-hard triplet loss (Hermans, Beyer, Leibe 2017, "In Defense of the Triplet Loss", equation 5).

    [margin + max d(a, p) − min d(a, n)]₊ for each anchor a, over the other samples p of its object and the
    samples n of other objects in either frame; d is the Euclidean distance. The loss is the mean over the
    anchors that have both. `soft` uses log(1 + exp(max d − min d)) instead, which needs no margin.
    `unit_length` divides embeddings by their lengths, as tracking by cosine similarity does; the paper does
    not. Published: margins of 0.1 to 1 and soft (later work mostly uses 0.3), weight 1.
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
    return TrackLoss({"match": (sum_valid(losses, anchors), anchors.sum())}, -distance[..., :n, n:])


def contrastive_loss(key: Samples, reference: Samples, *, margin: float, unit_length: bool) -> TrackLoss:
    """Pairwise contrastive loss (Hadsell, Chopra, LeCun 2006, equation 4).

    ½ d² for a key and a reference sample of one object, ½ [margin − d]₊² for two of different objects; d is
    the Euclidean distance. The loss is the mean over all pairs of samples on objects. `unit_length`: as in
    `triplet_loss`. Published: margin 1, weight 1.
    """
    x, y = (unit(s.features) if unit_length else s.features for s in (key, reference))
    distance = distances(x, y)
    pairs = key.positive[..., :, None] & reference.positive[..., None, :]
    apart = jax.nn.relu(margin - distance)
    losses = 0.5 * jnp.where(same_object(key, reference), distance, apart) ** 2
    return TrackLoss({"match": (sum_valid(losses, pairs), jnp.sum(pairs))}, -distance)


def quasi_dense_loss(
    key: Samples, reference: Samples, *, weight: float, cosine_margin: float, negatives_per_positive: int
) -> TrackLoss:
    """Multi-positive contrastive loss of QDTrack (Pang et al. 2021, section 3.2), also used by IDOL.

    log(1 + Σ_k⁺ Σ_k⁻ exp(v·k⁻ − v·k⁺)) for each key RoI v whose object is in the reference frame, over the
    reference samples k⁺ of its object and all other ones k⁻, with background. The loss is the mean over an
    image's v, then over images; published weight 0.25. Adds `cosine_loss` with weight 1.
    """
    scores = products(key.features, reference.features)
    same = same_object(key, reference)
    negative = key.positive[..., :, None] & reference.valid[..., None, :] & ~same
    # The double sum is a product of two sums.
    pulled, pushed = _log_sum_exp(-scores, same), _log_sum_exp(scores, negative)
    losses = weight * jax.nn.softplus(pulled + pushed)
    cosines = products(unit(key.features), unit(reference.features))
    auxiliary = cosine_loss(cosines, same, negative, cosine_margin, negatives_per_positive)
    return TrackLoss({"match": _mean_of_images(losses, same.any(-1))} | auxiliary, scores)


def cosine_loss(
    cosines: Float[Array, "pairs key reference"],
    same: Bool[Array, "pairs key reference"],
    negative: Bool[Array, "pairs key reference"],
    margin: float,
    negatives_per_positive: int,
) -> dict[str, Term]:
    """QDTrack's auxiliary loss (section 3.2): cosines approach 1 where `same`, and 0 where `negative`.

    (1 − [c]₊)² for pairs in `same`, and [c − margin]₊² for the hardest pairs in `negative`,
    `negatives_per_positive` for each pair in `same`. The loss is the mean over an image's pairs, then over
    images. Published (their code): margin 0.1, 3 negatives per positive.
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


def _mean_of_images(values: Float[Array, "pairs samples"], valid: Bool[Array, "pairs samples"]) -> Term:
    """(sum over images of the mean of their `values` where `valid`, number of images)."""
    totals = jnp.where(valid, values, 0.0).sum(1)
    return jnp.sum(totals / jnp.maximum(valid.sum(1), 1)), jnp.array(len(values))


def _log_sum_exp(
    x: Float[Array, "*rows columns"], mask: Bool[Array, "*rows columns"]
) -> Float[Array, "*rows"]:
    """log Σ exp of x over its last axis where `mask`; −FAR where the mask is empty."""
    return jax.nn.logsumexp(jnp.where(mask, x, -FAR), axis=-1)


LOSSES: dict[str, Callable[..., TrackLoss]] = {
    "softmax": softmax_loss,
    "triplet": triplet_loss,
    "contrastive": contrastive_loss,
    "quasi_dense": quasi_dense_loss,
}
# Losses that compare sampled RoIs of both frames. The others compare RoIs of the key frame with the objects
# of the reference frame.
OVER_ROIS = ("quasi_dense",)


def accuracy(
    scores: Float[Array | np.ndarray, "pairs key _columns"], key: Samples, reference: Samples
) -> Term:
    """(right, count) of key RoIs: is the reference sample with the highest score on the same object?

    With a column for "new", all RoIs on objects are counted. Without it, only RoIs whose object is in the
    reference frame are counted, since no score can say that an object is new.
    """
    same = same_object(key, reference)
    if scores.shape[-1] > same.shape[-1]:
        return match_accuracy(scores, match_targets(same), key.positive, reference.positive)
    best = jnp.argmax(jnp.where(reference.positive[..., None, :], scores, -jnp.inf), axis=-1)
    right = jnp.take_along_axis(same, best[..., None], axis=-1)[..., 0]
    return sum_valid(right, same.any(-1)), jnp.sum(same.any(-1))


def match_accuracy(
    logits: Float[Array | np.ndarray, "pairs rois columns"],
    targets: Int[Array | np.ndarray, "pairs rois"],
    valid: Bool[Array | np.ndarray, "pairs rois"],
    reference_valid: Bool[Array | np.ndarray, "pairs objects"],
) -> Term:
    """(right, count) of valid RoIs whose correct column, an object or "new", has the highest logit."""
    exists = jnp.pad(reference_valid, ((0, 0), (1, 0)), constant_values=True)
    right = jnp.argmax(jnp.where(exists[:, None], logits, -jnp.inf), axis=-1) == targets
    return sum_valid(right, valid), jnp.sum(valid)
