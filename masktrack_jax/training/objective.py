"""The training objective: compute the sum and count of every loss from a batch of labelled frame pairs."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key, PRNGKeyArray
from ml_collections import ConfigDict

from masktrack_jax.data.batches import FramePairs, Frames
from masktrack_jax.losses import detection
from masktrack_jax.losses.detection import Term
from masktrack_jax.losses.tracking import Samples
from masktrack_jax.models.forms import forms
from masktrack_jax.models.masktrack_rcnn import MaskTrackRCNN, Pyramid
from masktrack_jax.models.rpn_head import deltas_at
from masktrack_jax.ops.mask_targets import crop_masks, resize_masks
from masktrack_jax.training import targets
from masktrack_jax.training.features import (
    PairFeatures,
    RPNOutputs,
    frame_proposals,
    pair_features,
)
from masktrack_jax.training.targets import AnchorTargets, Objects, Proposals, RoITargets
from masktrack_jax.training.track_samples import RoIFeatures, Terms, track_rois, track_terms


def sample_keys(key: PRNGKeyArray, n: int, offset: int | Int[Array, ""]) -> Key[Array, " n"]:
    """Random keys of the samples `offset` … `offset + n - 1` of the global batch.

    The random numbers of a sample depend only on its index in the global batch, not on how the batch is
    split over devices.
    """
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(offset + jnp.arange(n))


def pair_losses(
    model: MaskTrackRCNN, pairs: FramePairs, keys: Key[Array, " batch"], options: ConfigDict
) -> tuple[Terms, Terms]:
    """Losses and other metrics of a bound model, each as (sum, count); use `nn.apply(pair_losses, model)`.

    `options` is a config's `train`. If only the track head is trained (`options.only`), only its loss is
    computed.
    """
    if options.only == "track_head":
        key, reference = pair_rois(model, pairs, keys, options)
        terms, accuracy = track_terms(model.track_head, key, reference, options.track)
        positives = key.positive.sum(), jnp.array(len(key.positive))
        return terms, {"match_accuracy": accuracy, "positives": positives}
    found = propose_and_draw(model, pairs, keys, options)
    features, rois = found.features, found.rois
    key_frames = features.pairs.key
    terms = rpn_terms(model, key_frames, found.rpn_keys, found.rpn, options.rpn)
    heads = box_and_mask_terms(model, key_frames, features.key, rois, options)
    samples = track_rois(model, features, found.proposals, rois, options, heads.pooled)
    match, match_accuracy = track_terms(model.track_head, *samples, options.track)
    return terms | heads.terms | match, {
        "match_accuracy": match_accuracy,
        "cls_accuracy": heads.accuracy,
        "positives": (rois.positive.sum(), jnp.array(len(features.keys))),
    }


def pair_rois(
    model: MaskTrackRCNN, pairs: FramePairs, keys: Key[Array, " batch"], options: ConfigDict
) -> tuple[Samples, Samples]:
    """The RoI features of both frames for the tracking loss of `pair_losses`, as `Samples`."""
    found = propose_and_draw(model, pairs, keys, options)
    return track_rois(model, found.features, found.proposals, found.rois, options)


class Proposed(NamedTuple):
    """Features of the pairs, and the RPN's outputs, the proposals and the sampled RoIs of the key frames."""

    features: PairFeatures
    rpn: RPNOutputs
    rpn_keys: Key[Array, " batch"]  # for the sampling of anchors
    proposals: Proposals
    rois: RoITargets


def propose_and_draw(
    model: MaskTrackRCNN, pairs: FramePairs, keys: Key[Array, " batch"], options: ConfigDict
) -> Proposed:
    """Run the first stage of the detector, and sample the RoIs that train the second stage."""
    features = pair_features(model, pairs, keys)
    rpn = RPNOutputs(*model.rpn_head(features.key))
    proposals = frame_proposals(model, rpn, features.pairs.key)
    split = jax.vmap(jax.random.split)(features.keys)
    rois = draw_rois(model, features.pairs.key, split[:, 1], proposals, options.roi)
    return Proposed(features, rpn, split[:, 0], proposals, rois)


def rpn_terms(
    model: MaskTrackRCNN, frames: Frames, keys: Key[Array, " batch"], rpn: RPNOutputs, options: ConfigDict
) -> Terms:
    """RPN losses at the sampled anchors."""
    anchors = model.anchors(*frames.image.shape[1:3])

    def one(priority: Array, objects: Array, objects_valid: Array, size: Array) -> AnchorTargets:
        usable = anchors.valid(size) & anchors.inside(size) if options.inside_only else anchors.valid(size)
        return targets.anchor_targets(priority, anchors.boxes, usable, objects, objects_valid, options)

    priority = targets.priorities(keys, len(anchors.boxes))
    drawn = jax.vmap(one)(priority, frames.boxes, frames.valid, frames.image_size)
    logits = jnp.take_along_axis(rpn.logits, drawn.rows, axis=1)
    deltas = jax.vmap(deltas_at)(rpn.deltas, drawn.rows)
    return detection.rpn_losses(logits, deltas, drawn.positive, drawn.deltas, drawn.valid, options.beta)


def draw_rois(
    model: MaskTrackRCNN,
    frames: Frames,
    keys: Key[Array, " batch"],
    proposals: Proposals,
    options: ConfigDict,
) -> RoITargets:
    """Sample the RoIs of every image that train the box and mask heads."""
    count = frames.boxes.shape[1] + proposals.boxes.shape[1]
    objects = Objects(frames.boxes, frames.labelled.labels, frames.valid)
    draw = partial(targets.roi_targets, num_classes=model.num_classes, options=options)
    return jax.vmap(draw)(targets.priorities(keys, count), proposals, objects)


class HeadTerms(NamedTuple):
    """Losses of the box and mask heads."""

    terms: Terms
    accuracy: Term  # classification accuracy of foreground RoIs
    pooled: RoIFeatures  # RoI features of the box head


def box_and_mask_terms(
    model: MaskTrackRCNN, frames: Frames, levels: Pyramid, rois: RoITargets, options: ConfigDict
) -> HeadTerms:
    """Losses of the box and mask heads at the sampled RoIs."""
    pooled = model.pool(levels, rois.boxes, rois.valid, 7)
    classes, deltas = model.classify(pooled, len(rois.valid))
    terms = detection.box_losses(
        classes, deltas, rois.labels, rois.positive, rois.deltas, rois.valid, options.roi.beta
    )
    # Only positives have masks, and they are in the first slots.
    terms |= mask_terms(model, frames, levels, rois.first(targets.max_positives(options.roi)))
    right = (jnp.argmax(classes, -1) == rois.labels) & rois.positive
    accuracy = right.sum(), rois.positive.sum()  # without background, which is easy
    return HeadTerms(terms, accuracy, pooled.reshape(*rois.valid.shape, *pooled.shape[1:]))


def mask_terms(model: MaskTrackRCNN, frames: Frames, levels: Pyramid, rois: RoITargets) -> Terms:
    """Mask loss of the positive RoIs."""
    labels = jnp.where(rois.positive, rois.labels, 0)
    logits = model.mask_logits(levels, rois.boxes, rois.positive, labels)
    crop = resize_masks if model.config.pixel_boxes else partial(crop_masks, chunk=forms().target_chunk)
    masks = frames.labelled.masks
    wanted = jax.vmap(crop, (0, 0, 0, None))(masks, rois.boxes, rois.target, logits.shape[-1])
    return detection.mask_loss(logits, wanted, rois.positive)
