"""The targets and outputs of one key/reference pair against `train_A` and `orig_train_A`.

The recordings give the RoI head made-up proposals, and draw the first candidates instead of random ones.
"""

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from masktrack_jax.data.batches import FramePairs, Frames, FrameTargets
from masktrack_jax.losses.tracking import match_logits
from masktrack_jax.models.masktrack_rcnn import MaskTrackRCNN
from masktrack_jax.models.rpn_head import deltas_at
from masktrack_jax.ops.mask_targets import crop_masks, resize_masks
from masktrack_jax.ops.target_assignment import assign
from masktrack_jax.training import objective, targets
from masktrack_jax.training.features import pair_features

from .inference import TOLERANCES
from .inputs import make_clip
from .network import DTYPE, network
from .recorded import Row, arrays, largest, relative, unequal

RECORDINGS = {"mm": "train_A", "orig": "orig_train_A"}
PROPOSALS = 0.017


class WithProposals(MaskTrackRCNN):
    """The network with given proposals (N, 4) instead of its own."""

    given: Any = None

    def propose(self, logits: Any, deltas: Any, anchors: Any, image_sizes: Any) -> tuple[Any, Any]:
        return jnp.asarray(self.given)[None], jnp.ones((1, len(self.given)), bool)


def first_candidates() -> Any:
    """Draw the first candidates within this context."""
    order = lambda keys, n: jnp.broadcast_to(-jnp.arange(n, dtype=jnp.float32), (len(keys), n))  # noqa: E731
    return mock.patch.object(targets, "priorities", order)


def pixels(form: str) -> np.ndarray | np.float32:
    """The shift from a recording's boxes to ours: the authors' name the last pixel."""
    return np.array([0, 0, 1, 1], np.float32) if form == "orig" else np.float32(0)


def pair(form: str) -> FramePairs:
    """The recorded pair as a batch of one."""
    recorded, shift = arrays(RECORDINGS[form]), pixels(form)
    clip = make_clip(*map(int, recorded["clip_args"]))["frames"]
    images = [np.pad(clip[int(recorded[t])], ((0, 24), (0, 0), (0, 0))) for t in ("key_t", "ref_t")]
    if form == "mm":
        boxes, ids, references = (
            recorded[f"{k}"] for k in ("gt_bboxes", "gt_instance_ids", "ref_gt_instance_ids")
        )
        matches = [1 + references.tolist().index(i) if i in references else 0 for i in ids]
        reference_boxes, labels = recorded["ref_gt_bboxes"], recorded["gt_labels"]
    else:
        boxes, reference_boxes, matches = (recorded[k] for k in ("gt_bboxes", "ref_bboxes", "gt_pids"))
        labels = recorded["gt_labels"] - 1
    count, seen = len(boxes), len(reference_boxes)
    size = np.array([360, 640], np.int32)
    labelled = FrameTargets(
        labels=np.asarray(labels, np.int32),
        masks=recorded["gt_masks_packed"].reshape(count, 384, 80),
        matches=np.asarray(matches, np.int32),
    )
    key = Frames(images[0], size, (boxes + shift).astype(np.float32), np.ones(count, bool), labelled)
    reference = Frames(
        images[1],
        size,
        np.pad(reference_boxes + shift, ((0, count - seen), (0, 0))).astype(np.float32),
        np.arange(count) < seen,
    )
    return jax.tree.map(lambda x: np.asarray(x)[None], FramePairs(key, reference))


def build(form: str) -> tuple[ConfigDict, WithProposals, Any]:
    """Config, the network with the recorded proposals, and its variables."""
    about, variables = network(form)
    given = (arrays(RECORDINGS[form])["proposals"] + pixels(form)).astype(np.float32)
    config = copy.deepcopy(about.config)
    config.model.dtype = DTYPE
    model = WithProposals(FrozenConfigDict(config.model), len(about.categories), _hashable(given))
    return config, model, jax.tree.map(lambda x: x.astype(DTYPE), variables)


class _hashable(tuple):
    """Boxes as a module's field, which must be hashable."""

    def __new__(cls, boxes: np.ndarray) -> "_hashable":
        return super().__new__(cls, map(tuple, boxes.tolist()))

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.array(list(self), np.float32)


def details(model: MaskTrackRCNN, pairs: FramePairs, options: FrozenConfigDict) -> dict[str, Any]:
    """Intermediate results of the objective for one image."""
    keys = jax.random.split(jax.random.key(0), 1)  # unused: see `first_candidates`
    features, reference, (frames, reference_frames), _ = pair_features(model, pairs, keys)
    height, width = frames.image.shape[1:3]
    size, objects, exists = frames.image_size[0], frames.boxes[0], frames.valid[0]
    anchors = model.anchors(height, width)
    logits, deltas = model.rpn_head(features)
    usable = anchors.valid(size) & (anchors.inside(size) | (not options.rpn.inside_only))
    thresholds = ("positive_iou", "negative_iou", "min_positive_iou")
    anchor_assignment = assign(
        anchors.boxes, usable, objects, exists, **{name: options.rpn[name] for name in thresholds}
    )
    order = targets.priorities(keys, len(anchors.boxes))[0]
    drawn = targets.anchor_targets(order, anchors.boxes, usable, objects, exists, options.rpn)
    proposals = targets.Proposals(*model.propose(logits, deltas, anchors, frames.image_size))
    rpn_proposals = MaskTrackRCNN.propose(model, logits, deltas, anchors, frames.image_size)
    roi_assignment = assign(
        proposals.boxes[0],
        proposals.valid[0],
        objects,
        exists,
        **{name: options.roi[name] for name in thresholds},
    )
    rois = objective.draw_rois(model, frames, keys, proposals, options.roi)
    pooled = model.pool(features, rois.boxes, rois.valid, 7)
    classes, box_deltas = model.classify(pooled, 1)
    quota = targets.max_positives(options.roi)
    first = jax.tree.map(lambda x: x[:, :quota], rois)
    crop = resize_masks if model.config.pixel_boxes else crop_masks
    masks = crop(frames.targets.masks[0], first.boxes[0], first.target[0], 28)
    mask_logits = model.mask_logits(features, first.boxes, first.positive, first.labels)
    pooled = pooled.reshape(1, -1, *pooled.shape[1:])[:, :quota]
    references = model.embed(model.pool(reference, reference_frames.boxes, reference_frames.valid, 7), 1)
    match = match_logits(model.embed(pooled[0], 1), references)
    return {
        "usable": usable,
        "anchor_assignment": anchor_assignment,
        "anchors_drawn": drawn,
        "rpn_logits": logits[0, drawn.rows],
        "rpn_deltas": deltas_at(deltas[0], drawn.rows),
        "rpn_proposals": rpn_proposals[0][0],
        "roi_assignment": roi_assignment,
        "rois": jax.tree.map(lambda x: x[0], rois),
        "classes": classes[0],
        "box_deltas": box_deltas[0].reshape(len(classes[0]), -1),
        "masks": masks,
        "mask_logits": mask_logits[0],
        "match": match[0],
        "matches": frames.targets.matches[0][first.target[0]],
    }


def detail_rows(form: str) -> Iterator[Row]:
    """Assignments, draws and targets exactly; outputs within float32's noise."""
    name, recorded, shift = RECORDINGS[form], arrays(RECORDINGS[form]), pixels(form)
    config, model, variables = build(form)
    with first_candidates():
        run = jax.jit(nn.apply(partial(details, options=FrozenConfigDict(config.train)), model))
        found = jax.device_get(run(variables, pair(form)))

    def exact(quantity: str, ours: Any, theirs: Any) -> Row:
        return Row(name, f"{quantity}: unequal", 0, unequal(ours, theirs))

    assigned = np.where(found["usable"], indices(found["anchor_assignment"]), -2)
    yield exact("anchors: assigned object", assigned, recorded["rpn_assign_gt_inds"])
    drawn = found["anchors_drawn"]
    positive, negative = drawn.rows[drawn.positive], drawn.rows[~drawn.positive & drawn.valid]
    yield exact("anchors: positives drawn", positive, recorded["rpn_pos_inds"])
    yield exact("anchors: negatives drawn", negative, recorded["rpn_neg_inds"])
    n = len(positive)
    yield Row(name, "anchors: target deltas", 2e-6, relative(drawn.deltas[:n], recorded["rpn_pos_targets"]))
    yield Row(
        name, "RPN logits", TOLERANCES["rpn_cls"], largest(found["rpn_logits"], recorded["rpn_sel_logits"])
    )
    yield Row(
        name, "RPN deltas", TOLERANCES["rpn_reg"], largest(found["rpn_deltas"][:n], recorded["rpn_pos_reg"])
    )
    theirs = recorded["rpn_train_proposals"][:, :4] + shift
    distance = np.abs(found["rpn_proposals"][:, None] - theirs[None]).max(-1)
    yield Row(name, "RPN proposals as a set, px", PROPOSALS, float(distance.min(0).max()))

    yield exact("RoIs: assigned object", indices(found["roi_assignment"]), recorded["roi_assign_gt_inds"])
    rois = found["rois"]
    n = int(rois.positive.sum())
    wanted = np.concatenate([recorded["roi_pos_bboxes"], recorded["roi_neg_bboxes"]]) + shift
    yield Row(name, "RoIs: boxes drawn, px", 1e-4, largest(rois.boxes, wanted))
    yield exact("RoIs: object of positives", rois.target[:n], recorded["roi_pos_assigned_gt_inds"])
    labels = rois.labels if form == "mm" else (rois.labels + 1) % 41
    yield exact("RoIs: labels", labels, recorded["roi_labels"])
    yield Row(name, "RoIs: target deltas", 2e-6, relative(rois.deltas[:n], own_deltas(form, recorded)[:n]))
    wanted = np.unpackbits(recorded["mask_targets_packed"], axis=1).reshape(-1, 28, 28)
    yield exact("mask targets", found["masks"], wanted)
    matches = recorded["track_targets"] if form == "mm" else recorded["track_ids"]
    yield exact("match targets", found["matches"][:n], matches[:n])

    classes, deltas = found["classes"], found["box_deltas"]
    if form == "orig":
        classes, deltas = np.roll(classes, 1, axis=1), np.pad(deltas, ((0, 0), (4, 0)))
        used = np.arange(deltas.shape[1]) >= 4  # ours has none for the background
        recorded = recorded | {"roi_bbox_pred": recorded["roi_bbox_pred"] * used}
    yield Row(name, "class logits", TOLERANCES["cls_score"], largest(classes, recorded["roi_cls_score"]))
    yield Row(name, "box deltas", TOLERANCES["bbox_pred"], largest(deltas, recorded["roi_bbox_pred"]))
    yield Row(
        name,
        "mask logits",
        TOLERANCES["mask_logits"],
        largest(found["mask_logits"], recorded["mask_logits_gtclass"]),
    )
    theirs = recorded["track_sim_logits" if form == "mm" else "track_match_score"][:n]
    match = found["match"][:n, : theirs.shape[1]]
    yield Row(name, "match logits, relative", 2e-4, relative(match, theirs))


def indices(assignment: Any) -> np.ndarray:
    """mmdet's form: −1 ignored, 0 negative, 1 + the object of a positive."""
    return np.where(assignment.positive, assignment.target + 1, np.where(assignment.negative, 0, -1))


def own_deltas(form: str, recorded: dict[str, np.ndarray]) -> np.ndarray:
    """Target deltas of each RoI for its own class."""
    if form == "mm":
        return recorded["roi_bbox_targets"]
    spread = recorded["roi_bbox_targets_expanded"].reshape(128, 41, 4)
    return spread[np.arange(128), recorded["roi_labels"]]
