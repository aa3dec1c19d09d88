"""The RoIs of a frame pair that the tracking loss compares, and the terms of the loss.

`track_rois` returns RoI features as `Samples` of both frames. `track_terms` needs only these and a track
head, so the features of a frozen detector can be stored (benchmarks/frozen.py).
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
from ml_collections import ConfigDict

from masktrack_jax.data.batches import FramePairs, Frames
from masktrack_jax.losses import tracking
from masktrack_jax.losses.detection import Term
from masktrack_jax.losses.tracking import Samples
from masktrack_jax.models.masktrack_rcnn import MaskTrackRCNN, Pyramid
from masktrack_jax.training import targets
from masktrack_jax.training.features import PairFeatures, RPNOutputs, frame_proposals
from masktrack_jax.training.targets import Objects, Proposals, RoITargets

Terms = dict[str, Term]
Head = Callable[[Float[Array, "rois 7 7 channels"]], Float[Array, "rois features"]]
RoIFeatures = Float[Array, "batch rois 7 7 channels"]


def track_terms(head: Head, key: Samples, reference: Samples, options: ConfigDict) -> tuple[Terms, Term]:
    """Terms and accuracy of the tracking loss selected by `options`, a config's `train.track`.

    `key` and `reference` hold RoI features, which `head` converts to embeddings.
    """

    def embed(samples: Samples) -> Samples:
        roi = samples.features
        embeddings = head(roi.reshape(-1, *roi.shape[2:]))
        return samples._replace(features=embeddings.reshape(*roi.shape[:2], -1))

    key, reference = embed(key), embed(reference)
    loss = tracking.LOSSES[options.loss](key, reference, **options[options.loss])
    return loss.terms, tracking.accuracy(loss.scores, key, reference)


def track_rois(
    model: MaskTrackRCNN,
    features: PairFeatures,
    proposals: Proposals,
    rois: RoITargets,
    options: ConfigDict,
    pooled: RoIFeatures | None = None,
) -> tuple[Samples, Samples]:
    """`Samples` of the key and reference frames with RoI features.

    Uses `drawn_samples` for the losses in `tracking.OVER_ROIS`, and `object_samples` for the others.
    `proposals` and `rois` (of the box head) belong to the key frames. `pooled` are the RoI features of
    `rois`, if known. `options` is a config's `train`.
    """
    track = options.track
    if track.loss in tracking.OVER_ROIS:
        return drawn_samples(model, features, proposals, track.roi)
    quota = targets.max_positives(options.roi)  # positives are in the first slots
    pooled = None if pooled is None else pooled[:, :quota]
    return object_samples(model, features, rois.first(quota), pooled)


def object_samples(
    model: MaskTrackRCNN, features: PairFeatures, rois: RoITargets, pooled: RoIFeatures | None
) -> tuple[Samples, Samples]:
    """The positive RoIs of the box head, and the objects of the reference frames (the paper's samples).

    If given, `pooled`, the features of the box head, are reused, as in the authors' code. mmtracking draws a
    second sample from the same distribution instead.
    """
    reference = features.pairs.reference
    if pooled is None:
        pooled = _pool(model, features.key, rois.boxes, rois.positive)
    key_samples = Samples(pooled, key_identity(features.pairs, rois.target), rois.positive, rois.positive)
    exists = reference.valid
    objects = jnp.broadcast_to(jnp.arange(exists.shape[1]), exists.shape)
    roi = _pool(model, features.reference, reference.boxes, exists)
    return key_samples, Samples(roi, objects, exists, exists)


def drawn_samples(
    model: MaskTrackRCNN, features: PairFeatures, proposals: Proposals, options: ConfigDict
) -> tuple[Samples, Samples]:
    """The positives of a second sample in the key frames, and all RoIs of a sample in the reference frames.

    `options` (`train.track.roi`) configure both samples. QDTrack also balances its samples over the objects.
    """
    pairs = features.pairs
    rpn = RPNOutputs(*model.rpn_head(features.reference))
    reference_proposals = frame_proposals(model, rpn, pairs.reference)
    key_keys, reference_keys = (
        jax.vmap(partial(jax.random.fold_in, data=data))(features.keys) for data in (2, 3)
    )
    rois = _draw(pairs.key, proposals, key_keys, options).first(targets.max_positives(options))
    key = Samples(
        _pool(model, features.key, rois.boxes, rois.positive),
        key_identity(pairs, rois.target),
        rois.positive,
        rois.positive,
    )
    rois = _draw(pairs.reference, reference_proposals, reference_keys, options)
    roi_features = _pool(model, features.reference, rois.boxes, rois.valid)
    return key, Samples(roi_features, rois.target, rois.positive, rois.valid)


def key_identity(pairs: FramePairs, target: Int[Array, "batch rois"]) -> Int[Array, "batch rois"]:
    """Identities of RoIs on the objects `target` of the key frames.

    The identity of an object is its row in the reference frame; other objects are numbered after these rows.
    """
    match = jnp.take_along_axis(pairs.key.labelled.matches, target, axis=1)
    return jnp.where(match > 0, match - 1, pairs.reference.boxes.shape[1] + target)


def _draw(
    frames: Frames, proposals: Proposals, keys: Key[Array, " batch"], options: ConfigDict
) -> RoITargets:
    """Sample RoIs among the objects and proposals of `frames`."""
    labels = jnp.zeros(frames.valid.shape, jnp.int32)  # classes do not matter
    objects = Objects(frames.boxes, labels, frames.valid)
    count = frames.boxes.shape[1] + proposals.boxes.shape[1]
    draw = partial(targets.roi_targets, num_classes=0, options=options)
    return jax.vmap(draw)(targets.priorities(keys, count), proposals, objects)


def _pool(
    model: MaskTrackRCNN,
    levels: Pyramid,
    boxes: Float[Array, "batch rois 4"],
    valid: Bool[Array, "batch rois"],
) -> RoIFeatures:
    pooled = model.pool(levels, boxes, valid, 7)
    return pooled.reshape(*valid.shape, *pooled.shape[1:])
