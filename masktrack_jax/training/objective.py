"""The training objective: from a batch of labelled frame pairs to the sums and counts of every loss."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from masktrack_jax import losses
from masktrack_jax.models.track_head import match_logits
from masktrack_jax.ops.masks import crop_masks, resize_masks
from masktrack_jax.training import targets


def sample_keys(key, n, offset):
    """Keys (n,) of the samples `offset` … `offset + n - 1` of the global batch.

    Each sample's draw depends on its place in the global batch alone, not on how that batch is cut into
    devices.
    """
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(offset + jnp.arange(n))


def pair_losses(model, batch, keys, options):
    """Losses {name: (sum, count)} and other metrics {name: (sum, count)} of a bound model.

    `batch` as in data/pairs.py with a leading B; `keys` (B,). Call through `nn.apply(pair_losses, model)`.
    """
    features, reference, batch, keys = frame_features(model, batch, keys)
    n, height, width = batch["image"].shape[:3]
    split = jax.vmap(jax.random.split)(keys)

    logits, deltas = model.rpn_head(features)
    terms = rpn_terms(model, batch, split[:, 0], logits, deltas, height, width, options.rpn)
    proposals, proposals_valid = model.propose(
        lax.stop_gradient(logits),
        lax.stop_gradient(deltas),
        model.anchors(height, width),
        batch["image_size"],
    )
    rois = draw_rois(model, batch, split[:, 1], proposals, proposals_valid, options.roi)

    pooled = model.pool(features, rois.boxes, rois.valid, 7)
    classes, box_deltas = model.classify(pooled, n)
    terms |= losses.box_losses(
        classes, box_deltas, rois.labels, rois.positive, rois.deltas, rois.valid, options.roi.beta
    )

    quota = targets.max_positives(options.roi)  # positives sit in the first slots, and only they go on
    first = jax.tree.map(lambda x: x[:, :quota], rois)
    terms |= mask_terms(model, batch, features, first)
    pooled = pooled.reshape(n, -1, *pooled.shape[1:])[:, :quota]
    match, accuracy = match_terms(model, batch, reference, pooled, first, options.match_over)
    right = (jnp.argmax(classes, -1) == rois.labels) & rois.positive
    return terms | match, {
        "match_accuracy": accuracy,
        "cls_accuracy": (right.sum(), rois.positive.sum()),  # of foreground: background is easy
        "positives": (first.positive.sum(), jnp.array(n)),
    }


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
    logits = jnp.take_along_axis(logits, drawn.index, axis=1)
    deltas = jnp.take_along_axis(deltas, drawn.index[..., None], axis=1)
    return losses.rpn_losses(logits, deltas, drawn.positive, drawn.deltas, drawn.valid, options.beta)


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


def mask_terms(model, batch, features, rois):
    """Mask loss of the positive RoIs."""
    labels = jnp.where(rois.positive, rois.labels, 0)
    logits = model.mask_logits(features, rois.boxes, rois.positive, labels)
    crop = resize_masks if model.config.pixel_boxes else crop_masks
    wanted = jax.vmap(crop, (0, 0, 0, None))(batch["masks"], rois.boxes, rois.target, logits.shape[-1])
    return losses.mask_loss(logits, wanted, rois.positive)


def match_terms(model, batch, reference, pooled, rois, over):
    """Match loss and accuracy of the positive RoIs against the objects of the reference frame.

    The RoIs and features of the box head are used again, as the authors do; mmtracking draws a second
    sample of the same distribution.
    """
    n = len(pooled)
    exists = batch["reference_valid"]
    embeddings = model.embed(pooled.reshape(-1, *pooled.shape[2:]), n)
    references = model.embed(model.pool(reference, batch["reference_boxes"], exists, 7), n)
    logits = match_logits(embeddings, references)
    wanted = jnp.take_along_axis(batch["matches"], rois.target, axis=1)
    arguments = (logits, wanted, rois.positive, exists)
    return losses.match_loss(*arguments, over), losses.match_accuracy(*arguments)
