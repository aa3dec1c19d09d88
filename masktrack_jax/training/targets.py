"""Training targets of one image: which anchors and proposals learn what. `vmap` them over a batch.

Labelled objects are padded arrays: boxes (G, 4), labels (G,), valid (G,).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from masktrack_jax.models import box_head, rpn_head
from masktrack_jax.ops import boxes as box_ops
from masktrack_jax.ops.target_assignment import assign, sample


class AnchorTargets(NamedTuple):
    """Sampled anchors (S,): rows, positive, valid; and deltas (S, 4) to their objects."""

    rows: jnp.ndarray
    positive: jnp.ndarray
    valid: jnp.ndarray
    deltas: jnp.ndarray


class RoITargets(NamedTuple):
    """Sampled RoIs (S,), positives first: boxes (S, 4), labels (K = background), object index, deltas."""

    boxes: jnp.ndarray
    labels: jnp.ndarray
    target: jnp.ndarray
    positive: jnp.ndarray
    valid: jnp.ndarray
    deltas: jnp.ndarray


def max_positives(options):
    """The quota of positives among `options.samples`."""
    return int(options.samples * options.positive_fraction)


def _assign(boxes, valid, objects, objects_valid, options):
    return assign(
        boxes,
        valid,
        objects,
        objects_valid,
        positive_iou=options.positive_iou,
        negative_iou=options.negative_iou,
        min_positive_iou=options.min_positive_iou,
    )


def _sample(priority, positive, negative, options):
    return sample(priority, positive, negative, size=options.samples, max_positive=max_positives(options))


def anchor_targets(priority, anchors, valid, objects, objects_valid, options):
    """`AnchorTargets` of `anchors` (A, 4); `priority` (A,) decides the draw (uniform noise)."""
    target, positive, negative = _assign(anchors, valid, objects, objects_valid, options)
    drawn = _sample(priority, positive, negative, options)
    mine = objects[target[drawn.rows]]
    deltas = box_ops.encode(jnp.asarray(anchors)[drawn.rows], mine, rpn_head.STDS)
    return AnchorTargets(*drawn, deltas)


def roi_targets(priority, proposals, valid, objects, labels, objects_valid, num_classes, options):
    """`RoITargets` of `proposals` (N, 4), with the objects themselves added in front as proposals.

    They are added after the assignment, as in mmdet: each is its own, and an object's best real proposal
    stays its own too. `priority` (G + N,) decides the draw (uniform noise).
    """
    assigned = _assign(proposals, valid, objects, objects_valid, options)
    boxes = jnp.concatenate([objects, proposals])
    target = jnp.concatenate([jnp.arange(len(objects), dtype=jnp.int32), assigned.target])
    positive = jnp.concatenate([objects_valid, assigned.positive])
    negative = jnp.concatenate([jnp.zeros_like(objects_valid), assigned.negative])
    drawn = _sample(priority, positive, negative, options)
    boxes, target = boxes[drawn.rows], target[drawn.rows]
    classes = jnp.where(drawn.positive, labels[target], num_classes)
    deltas = box_ops.encode(boxes, objects[target], box_head.STDS)
    return RoITargets(boxes, classes, target, drawn.positive, drawn.valid, deltas)


def priorities(keys, n):
    """Uniform noise (B, n), a key (B,) a sample."""
    return jax.vmap(lambda key: jax.random.uniform(key, (n,)))(keys)
