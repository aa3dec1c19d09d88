"""One key/reference pair: targets, losses, gradients and SGD steps against `train_A` and `orig_train_A`.

The recordings give the RoI head made-up proposals, and draw the first candidates in place of random ones.
"""

import copy
from functools import cache, partial
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import FrozenConfigDict

from masktrack_jax.data.batches import FramePairs, Frames, FrameTargets
from masktrack_jax.losses.tracking import match_logits
from masktrack_jax.models.masktrack_rcnn import MaskTrackRCNN
from masktrack_jax.models.resnet import frozen_names
from masktrack_jax.ops.mask_targets import crop_masks, resize_masks
from masktrack_jax.ops.target_assignment import assign
from masktrack_jax.training import objective, schedule, targets
from masktrack_jax.training.features import pair_features
from masktrack_jax.training.step import create_train_state, parallel, train_step

from .inference import DTYPE, TOLERANCES
from .inputs import make_clip
from .network import as_recorded, network
from .recorded import Row, arrays, document, largest, relative, unequal

RECORDINGS = {"mm": "train_A", "orig": "orig_train_A"}
# Our name of a loss, and theirs.
LOSSES = {
    "mm": {"rpn_cls": "loss_rpn_cls", "rpn_box": "loss_rpn_bbox", "cls": "loss_cls", "box": "loss_bbox"},
    "orig": {"rpn_cls": "loss_rpn_cls", "rpn_box": "loss_rpn_reg", "cls": "loss_cls", "box": "loss_reg"},
}
for known in LOSSES.values():
    known |= {"mask": "loss_mask", "match": "loss_match"}
LOSS, PROPOSALS = 1e-4, 0.017
# Two compilations of the same step differ by 0.005 in the median tensor and by 0.01 in the worst: units whose
# input is near 0 fall on either side of ReLU.
MEDIAN_GRADIENT, WORST_GRADIENT = 0.01, 0.02
TRAJECTORY = (1e-5, 1e-3, 2e-2, 5e-2)


class WithProposals(MaskTrackRCNN):
    """The network with given proposals (N, 4) in place of its own."""

    given: Any = None

    def propose(self, logits, deltas, anchors, image_sizes):
        return jnp.asarray(self.given)[None], jnp.ones((1, len(self.given)), bool)


def first_candidates():
    """Within this context the first candidates are drawn."""
    order = lambda keys, n: jnp.broadcast_to(-jnp.arange(n, dtype=jnp.float32), (len(keys), n))  # noqa: E731
    return mock.patch.object(targets, "priorities", order)


def pixels(form):
    """What takes a recording's boxes to ours: the authors' name the last pixel."""
    return np.array([0, 0, 1, 1], np.float32) if form == "orig" else np.float32(0)


def pair(form):
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


def build(form):
    """Config, the network with the recorded proposals, and its variables."""
    about, variables = network(form)
    given = (arrays(RECORDINGS[form])["proposals"] + pixels(form)).astype(np.float32)
    config = copy.deepcopy(about.config)
    config.model.dtype = DTYPE
    model = WithProposals(FrozenConfigDict(config.model), len(about.categories), _hashable(given))
    return config, model, jax.tree.map(lambda x: x.astype(DTYPE), variables)


class _hashable(tuple):
    """Boxes as a module's field, which must be hashable."""

    def __new__(cls, boxes):
        return super().__new__(cls, map(tuple, boxes.tolist()))

    def __array__(self, dtype=None, copy=None):
        return np.array(list(self), np.float32)


def details(model, pairs, options):
    """What the objective computes on its way, of one image."""
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
        "rpn_deltas": deltas[0, drawn.rows],
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


def detail_rows(form):
    """Assignments, draws and targets exactly; outputs within float32's noise."""
    name, recorded, shift = RECORDINGS[form], arrays(RECORDINGS[form]), pixels(form)
    config, model, variables = build(form)
    with first_candidates():
        run = jax.jit(nn.apply(partial(details, options=FrozenConfigDict(config.train)), model))
        found = jax.device_get(run(variables, pair(form)))

    def exact(quantity, ours, theirs):
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
        used = np.arange(deltas.shape[1]) >= 4  # the background's own are not ours to have
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


def indices(assignment):
    """mmdet's form: −1 ignored, 0 negative, 1 + the object of a positive."""
    return np.where(assignment.positive, assignment.target + 1, np.where(assignment.negative, 0, -1))


def own_deltas(form, recorded):
    """Target deltas of each RoI for its own class."""
    if form == "mm":
        return recorded["roi_bbox_targets"]
    spread = recorded["roi_bbox_targets_expanded"].reshape(128, 41, 4)
    return spread[np.arange(128), recorded["roi_labels"]]


@cache
def run_steps(form, count):
    """(metrics of `count` SGD steps, gradients of the first, parameters before and after it)."""
    config, model, variables = build(form)
    config = copy.deepcopy(config)
    # Both were recorded at this rate, without warm-up.
    config.optimizer.update({"learning_rate": 0.00125, "warmup_factor": 1.0, "decay_at": ()})
    mask = schedule.trainable(variables["params"], frozen_names(config.model.backbone.frozen_stages))
    optimizer = remembering(schedule.make_optimizer(config.optimizer, 100, mask))
    step = partial(train_step, model=model, optimizer=optimizer, options=FrozenConfigDict(config.train))
    state = create_train_state(jax.random.key(0), variables, optimizer)
    batch = jax.tree.map(lambda x: x[None], pair(form))
    run, metrics, first = parallel(step, jax.local_devices()[:1]), [], None
    with first_candidates():
        for _ in range(count):
            state, values = jax.device_get(run(state, batch))
            metrics.append(values)
            first = first or (state.opt_state[1], state.params)
    return metrics, first[0], variables["params"], first[1]


def remembering(optimizer):
    """The optimiser with the latest gradients in its state."""

    def update(gradients, state, params):
        updates, inner = optimizer.update(gradients, state[0], params)
        return updates, (inner, gradients)

    return optax.GradientTransformation(
        lambda p: (optimizer.init(p), jax.tree.map(jnp.zeros_like, p)), update
    )


def step_rows(form):
    """Losses, gradients and the first step of plain SGD."""
    name, recorded = RECORDINGS[form], arrays(RECORDINGS[form])
    metrics, gradients, before, after = run_steps(form, 4)
    for ours, theirs in LOSSES[form].items():
        wanted = float(recorded[f"loss/{theirs}"])
        yield Row(name, f"loss {ours}, relative", LOSS, abs(metrics[0][f"loss_{ours}"] - wanted) / wanted)
    accuracy = float(recorded["loss/match_accuracy" if form == "mm" else "loss/match_acc"]) / 100
    yield Row(name, "match accuracy", 1e-6, abs(metrics[0]["match_accuracy"] - accuracy))
    stats = network(form)[1]["batch_stats"]
    ours = as_recorded({"params": gradients, "batch_stats": stats}, form)
    yield from tensor_rows(name, "grad", "gradients", ours)
    step = jax.tree.map(lambda a, b: a - b, after, before)
    ours = as_recorded({"params": step, "batch_stats": stats}, form)
    yield from tensor_rows(name, "step", "SGD step", ours)


def tensor_rows(name, prefix, quantity, ours):
    """Norm of each tensor's difference over the norm of its recorded values: the median and the worst."""
    recorded = arrays(name)
    keys = [key for key in recorded if key.startswith(f"{prefix}/") and "@" not in key]
    parts = []
    for key in keys:
        wanted = recorded[key].reshape(-1)
        found = np.asarray(ours[key.partition("/")[2]]).reshape(-1)[:: int(recorded.get(f"{key}@stride", 1))]
        difference, size = np.linalg.norm(found - wanted), np.linalg.norm(wanted)
        # The boxes of this pair reach none of P5: its output convolution has gradient 0 on both sides.
        parts.append(difference / size if size else np.inf if difference else 0.0)
    if keys:
        worst = float(np.where(np.isfinite(parts), parts, np.inf).max())
        quantity = f"{quantity} of {len(keys)} tensors, relative"
        yield Row(name, f"{quantity}: median", MEDIAN_GRADIENT, float(np.median(parts)))
        yield Row(name, f"{quantity}: worst", WORST_GRADIENT, worst)


def trajectory_rows(form):
    """Losses and gradient norm over four steps; later ones are chaotic."""
    name = {"mm": "traj_A", "orig": "orig_traj_A"}[form]
    metrics = run_steps(form, 4)[0]
    for step, (wanted, tolerance) in enumerate(zip(document(name), TRAJECTORY)):

        def difference(ours, theirs, found=metrics[step], wanted=wanted):
            return float(abs(found[ours] - wanted[theirs]) / abs(wanted[theirs]))

        worst = float(np.max([difference(f"loss_{a}", b) for a, b in LOSSES[form].items()]))
        yield Row(name, f"step {step}: total loss, relative", tolerance, difference("loss", "total"))
        yield Row(name, f"step {step}: worst single loss, relative", tolerance, worst)
        norm = difference("gradient_norm", "grad_norm")
        yield Row(name, f"step {step}: gradient norm, relative", max(tolerance, 1e-3), norm)
