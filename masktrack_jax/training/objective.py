"""The training objective: from a batch of labelled frame pairs to the sums and counts of every loss."""

from functools import partial

import jax
import jax.numpy as jnp

from masktrack_jax.losses import detection
from masktrack_jax.ops.mask_targets import crop_masks, resize_masks
from masktrack_jax.training import targets
from masktrack_jax.training.track_samples import propose, track_rois, track_terms


def sample_keys(key, n, offset):
    """Keys (n,) of the samples `offset` … `offset + n - 1` of the global batch.

    Each sample's draw depends on its place in the global batch alone, not on how that batch is cut into
    devices.
    """
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(offset + jnp.arange(n))


def pair_losses(model, batch, keys, options):
    """Losses {name: (sum, count)} and other metrics {name: (sum, count)} of a bound model.

    `batch` as in data/pairs.py with a leading B; `keys` (B,). Call through `nn.apply(pair_losses, model)`.
    Where only the track head learns (`options.only`), its loss is all that is computed.
    """
    if options.only == "track_head":
        key, reference = pair_rois(model, batch, keys, options)
        terms, accuracy = track_terms(model.track_head, key, reference, options.track)
        positives = key.positive.sum(), jnp.array(len(key.positive))
        return terms, {"match_accuracy": accuracy, "positives": positives}
    frames, outputs, proposals, split, rois = proposed(model, batch, keys, options)
    features, _, batch, keys = frames
    terms = rpn_terms(model, batch, split[:, 0], *outputs, *batch["image"].shape[1:3], options.rpn)
    parts, accuracy, pooled = box_and_mask_terms(model, batch, features, rois, options)
    pair = track_rois(model, frames, proposals, rois, options, pooled)
    match, match_accuracy = track_terms(model.track_head, *pair, options.track)
    return terms | parts | match, {
        "match_accuracy": match_accuracy,
        "cls_accuracy": accuracy,
        "positives": (rois.positive.sum(), jnp.array(len(keys))),
    }


def pair_rois(model, batch, keys, options):
    """What the tracking loss of `pair_losses` compares: `Samples` of RoI features of both frames."""
    frames, _, proposals, _, rois = proposed(model, batch, keys, options)
    return track_rois(model, frames, proposals, rois, options)


def proposed(model, batch, keys, options):
    """`frame_features`, and of the key frames the RPN's outputs, proposals, keys (B, 2) and RoIs drawn."""
    frames = frame_features(model, batch, keys)
    features, _, batch, keys = frames
    outputs = model.rpn_head(features)
    proposals = propose(model, outputs, batch)
    split = jax.vmap(jax.random.split)(keys)
    return frames, outputs, proposals, split, draw_rois(model, batch, split[:, 1], *proposals, options.roi)


def frame_features(model, batch, keys):
    """Pyramids of the key and of the reference frames, and the batch and keys that go with them.

    A batch whose reference frames are labelled as well is turned round and appended: every frame is key and
    reference in turn, 2·B samples from the features of 2·B frames instead of B.
    """
    n = batch["image"].shape[0]
    frames = ("image", "image_size", "boxes", "valid")
    targets_ = ("labels", "masks", "matches")
    turned = {name: batch[f"reference_{name}"] for name in frames}
    both = {name: jnp.concatenate([batch[name], turned[name]]) for name in frames[:2]}
    pyramid = model.features(both["image"], both["image_size"])
    if "reference_labels" not in batch:
        return tuple(x[:n] for x in pyramid), tuple(x[n:] for x in pyramid), batch, keys

    turned |= {name: batch[f"reference_{name}"] for name in targets_}
    turned |= {f"reference_{name}": batch[name] for name in frames}
    batch = {name: jnp.concatenate([batch[name], other]) for name, other in turned.items()}
    again = jax.vmap(partial(jax.random.fold_in, data=1))(keys)
    reference = tuple(jnp.roll(x, n, axis=0) for x in pyramid)
    return pyramid, reference, batch, jnp.concatenate([keys, again])


def rpn_terms(model, batch, keys, logits, deltas, height, width, options):
    """RPN losses at the sampled anchors."""
    anchors = model.anchors(height, width)

    def one(priority, objects, objects_valid, size):
        usable = anchors.valid(size) & anchors.inside(size) if options.inside_only else anchors.valid(size)
        return targets.anchor_targets(priority, anchors.boxes, usable, objects, objects_valid, options)

    drawn = jax.vmap(one)(
        targets.priorities(keys, len(anchors.boxes)), batch["boxes"], batch["valid"], batch["image_size"]
    )
    logits = jnp.take_along_axis(logits, drawn.rows, axis=1)
    deltas = jnp.take_along_axis(deltas, drawn.rows[..., None], axis=1)
    return detection.rpn_losses(logits, deltas, drawn.positive, drawn.deltas, drawn.valid, options.beta)


def draw_rois(model, batch, keys, proposals, valid, options):
    """`RoITargets` with a leading B."""
    count = batch["boxes"].shape[1] + proposals.shape[1]
    return jax.vmap(lambda *arrays: targets.roi_targets(*arrays, model.num_classes, options))(
        targets.priorities(keys, count),
        proposals,
        valid,
        batch["boxes"],
        batch["labels"],
        batch["valid"],
    )


def box_and_mask_terms(model, batch, features, rois, options):
    """Losses of the box and mask heads, (right, of how many) classes, and the box head's RoI features."""
    pooled = model.pool(features, rois.boxes, rois.valid, 7)
    classes, deltas = model.classify(pooled, len(rois.valid))
    terms = detection.box_losses(
        classes, deltas, rois.labels, rois.positive, rois.deltas, rois.valid, options.roi.beta
    )
    quota = targets.max_positives(options.roi)  # positives sit in the first slots, and only they go on
    terms |= mask_terms(model, batch, features, jax.tree.map(lambda x: x[:, :quota], rois))
    right = (jnp.argmax(classes, -1) == rois.labels) & rois.positive
    accuracy = right.sum(), rois.positive.sum()  # of foreground: background is easy
    return terms, accuracy, pooled.reshape(*rois.valid.shape, *pooled.shape[1:])


def mask_terms(model, batch, features, rois):
    """Mask loss of the positive RoIs."""
    labels = jnp.where(rois.positive, rois.labels, 0)
    logits = model.mask_logits(features, rois.boxes, rois.positive, labels)
    crop = resize_masks if model.config.pixel_boxes else crop_masks
    wanted = jax.vmap(crop, (0, 0, 0, None))(batch["masks"], rois.boxes, rois.target, logits.shape[-1])
    return detection.mask_loss(logits, wanted, rois.positive)
