"""Training targets of anchors and proposals in one image; use `vmap` for a batch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key
from ml_collections import ConfigDict

from masktrack_jax.models import box_head, rpn_head
from masktrack_jax.models.forms import forms
from masktrack_jax.ops import boxes as box_ops
from masktrack_jax.ops.target_assignment import Assignment, Sample, assign, sample


class Objects(NamedTuple):
    """The labelled objects of an image, padded."""

    boxes: Float[Array, "objects 4"]
    labels: Int[Array, " objects"]
    valid: Bool[Array, " objects"]


class Proposals(NamedTuple):
    """Proposals of the images of a batch, padded."""

    boxes: Float[Array, "*batch proposals 4"]
    valid: Bool[Array, "*batch proposals"]


class AnchorTargets(NamedTuple):
    """Sampled anchors."""

    rows: Int[Array, "*batch samples"]  # among all anchors
    positive: Bool[Array, "*batch samples"]
    valid: Bool[Array, "*batch samples"]
    deltas: Float[Array, "*batch samples 4"]  # to the assigned objects


class RoITargets(NamedTuple):
    """Sampled RoIs, positives first."""

    boxes: Float[Array, "*batch samples 4"]
    labels: Int[Array, "*batch samples"]  # the number of classes for background
    target: Int[Array, "*batch samples"]  # index of the assigned object
    positive: Bool[Array, "*batch samples"]
    valid: Bool[Array, "*batch samples"]
    deltas: Float[Array, "*batch samples 4"]  # to the assigned objects

    def first(self, count: int) -> "RoITargets":
        """The first `count` RoIs of every image."""
        return jax.tree.map(lambda x: x[:, :count], self)


def max_positives(options: ConfigDict) -> int:
    """The largest number of positives among `options.samples`."""
    return int(options.samples * options.positive_fraction)


def _assign(
    boxes: Float[Array | np.ndarray, "candidates 4"],
    valid: Bool[Array, " candidates"],
    objects: Float[Array, "objects 4"],
    objects_valid: Bool[Array, " objects"],
    options: ConfigDict,
) -> Assignment:
    return assign(
        boxes,
        valid,
        objects,
        objects_valid,
        positive_iou=options.positive_iou,
        negative_iou=options.negative_iou,
        min_positive_iou=options.min_positive_iou,
        coordinates_first=forms().coordinates_first,
    )


def _sample(
    priority: Float[Array, " candidates"],
    positive: Bool[Array, " candidates"],
    negative: Bool[Array, " candidates"],
    options: ConfigDict,
) -> Sample:
    return sample(priority, positive, negative, size=options.samples, max_positive=max_positives(options))


def anchor_targets(
    priority: Float[Array, " anchors"],
    anchors: Float[Array | np.ndarray, "anchors 4"],
    valid: Bool[Array, " anchors"],
    objects: Float[Array, "objects 4"],
    objects_valid: Bool[Array, " objects"],
    options: ConfigDict,
) -> AnchorTargets:
    """Sample anchors by descending `priority` (uniform noise), and assign objects to them."""
    target, positive, negative = _assign(anchors, valid, objects, objects_valid, options)
    drawn = _sample(priority, positive, negative, options)
    mine = objects[target[drawn.rows]]
    deltas = box_ops.encode(jnp.asarray(anchors)[drawn.rows], mine, rpn_head.STDS)
    return AnchorTargets(*drawn, deltas)


def roi_targets(
    priority: Float[Array, " candidates"],
    proposals: Proposals,
    objects: Objects,
    num_classes: int,
    options: ConfigDict,
) -> RoITargets:
    """Sample RoIs among the objects' own boxes and the proposals, and assign objects to them.

    The objects' boxes are added after the assignment, as in mmdet: each is assigned to its object, whose best
    proposal stays assigned to it too. `priority` (uniform noise) is ordered (objects, proposals); RoIs are
    sampled by descending priority.
    """
    assigned = _assign(*proposals, objects.boxes, objects.valid, options)
    boxes = jnp.concatenate([objects.boxes, proposals.boxes])
    target = jnp.concatenate([jnp.arange(len(objects.boxes), dtype=jnp.int32), assigned.target])
    positive = jnp.concatenate([objects.valid, assigned.positive])
    negative = jnp.concatenate([jnp.zeros_like(objects.valid), assigned.negative])
    drawn = _sample(priority, positive, negative, options)
    boxes, target = boxes[drawn.rows], target[drawn.rows]
    classes = jnp.where(drawn.positive, objects.labels[target], num_classes)
    deltas = box_ops.encode(boxes, objects.boxes[target], box_head.STDS)
    return RoITargets(boxes, classes, target, drawn.positive, drawn.valid, deltas)


def priorities(keys: Key[Array, " batch"], n: int) -> Float[Array, "batch n"]:
    """Uniform noise, from one key per image."""
    return jax.vmap(lambda key: jax.random.uniform(key, (n,)))(keys)
