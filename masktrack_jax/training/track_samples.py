"""The tracking loss: which RoIs of a pair of frames it compares, and its terms.

In two halves. `track_rois` ends at RoI features (`Samples` of both frames), and `track_terms` goes on from
there with nothing but a head: the features of a frozen detector can be kept between the two (frozen.py).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from masktrack_jax.losses import tracking
from masktrack_jax.losses.tracking import Samples
from masktrack_jax.training import targets


def track_terms(head, key, reference, options):
    """Terms {name: (sum, count)} and the accuracy (right, of how many) of the loss that `options` name.

    `head`: RoI features (M, 7, 7, C) → embeddings (M, E); `key`, `reference`: `Samples` of RoI features;
    `options`: a config's `train.track`.
    """

    def embed(samples):
        roi = samples.features
        embeddings = head(roi.reshape(-1, *roi.shape[2:]))
        return samples._replace(features=embeddings.reshape(*roi.shape[:2], -1))

    key, reference = embed(key), embed(reference)
    terms, scores = tracking.LOSSES[options.loss](key, reference, **options[options.loss])
    return terms, tracking.accuracy(scores, key, reference)


def track_rois(model, frames, proposals, rois, options, pooled=None):
    """`Samples` of the key and of the reference frames with RoI features.

    Most losses compare the positive RoIs of the box head with the objects of the reference frame (the paper).
    The features of the box head are used again where `pooled` (B, S, 7, 7, C) has them, as the authors do;
    mmtracking draws a second sample of the same distribution. The losses of `tracking.OVER_ROIS` compare the
    positives of a second draw in the key frame, by `train.track.roi`, with all RoIs of such a draw in the
    reference frame (QDTrack, whose draw balances the objects besides).

    `frames`: what `objective.frame_features` gives; `proposals` (boxes, valid) and `rois` (`RoITargets`) are
    those of the key frames; `options`: a config's `train`.
    """
    features, reference, batch, keys = frames
    track = options.track
    if track.loss in tracking.OVER_ROIS:
        there = _proposals(model, reference, batch, "reference_")
        draw = [jax.vmap(partial(jax.random.fold_in, data=2 + i))(keys) for i in range(2)]
        quota = targets.max_positives(track.roi)
        key = _draw(model, features, proposals, batch, "", draw[0], track.roi, quota)
        return key, _draw(model, reference, there, batch, "reference_", draw[1], track.roi)
    quota = targets.max_positives(options.roi)  # positives sit in the first slots
    rois = jax.tree.map(lambda x: x[:, :quota], rois)
    pooled = _pool(model, features, rois.boxes, rois.positive) if pooled is None else pooled[:, :quota]
    boxes, exists = batch["reference_boxes"], batch["reference_valid"]
    objects = jnp.broadcast_to(jnp.arange(exists.shape[1]), exists.shape)
    key = Samples(pooled, key_identity(batch, rois.target), rois.positive, rois.positive)
    return key, Samples(_pool(model, reference, boxes, exists), objects, exists, exists)


def key_identity(batch, target):
    """Identity (B, S) of RoIs on the objects `target` (B, S) of the key frame.

    That of an object in the reference frame is its place there; the others follow after those.
    """
    match = jnp.take_along_axis(batch["matches"], target, axis=1)
    return jnp.where(match > 0, match - 1, batch["reference_boxes"].shape[1] + target)


def propose(model, outputs, batch, frame=""):
    """Proposals (B, N, 4) and validity (B, N) of the RPN's `outputs`, through which nothing flows back."""
    anchors = model.anchors(*batch["image"].shape[1:3])
    return model.propose(*map(lax.stop_gradient, outputs), anchors, batch[f"{frame}image_size"])


def _proposals(model, features, batch, frame):
    return propose(model, model.rpn_head(features), batch, frame)


def _draw(model, features, proposals, batch, frame, keys, options, most=None):
    """`Samples` of a draw by the sampling `options` among proposals and objects; the first `most` of them."""
    boxes, exists = batch[f"{frame}boxes"], batch[f"{frame}valid"]
    drawn = jax.vmap(lambda *arrays: targets.roi_targets(*arrays, 0, options))(
        targets.priorities(keys, boxes.shape[1] + proposals[0].shape[1]),
        *proposals,
        boxes,
        jnp.zeros(exists.shape, jnp.int32),  # classes do not matter
        exists,
    )
    drawn = jax.tree.map(lambda x: x[:, :most], drawn)
    valid = drawn.positive if most else drawn.valid
    identity = drawn.target if frame else key_identity(batch, drawn.target)
    return Samples(_pool(model, features, drawn.boxes, valid), identity, drawn.positive, valid)


def _pool(model, features, boxes, valid):
    pooled = model.pool(features, boxes, valid, 7)
    return pooled.reshape(*valid.shape, *pooled.shape[1:])
