"""Inference, stage by stage, against `infer_A_*` (mmtracking) and `orig_infer_A_*` (the authors)."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from masktrack_jax.inference.frames import boxes_at_frame_size, detection_order, pixel_boxes_at_frame_size
from masktrack_jax.masks.paste import paste_masks
from masktrack_jax.ops.roi_samples import roi_levels
from masktrack_jax.tracking.association import Tracker
from masktrack_jax.tracking.memory import Frame
from masktrack_jax.tracking.options import AssociationOptions
from masktrack_jax.tracking.similarity import match_scores
from masktrack_jax.video.images import bucket_for, fit_scale, fit_size, pad_image, resize_image

from .inputs import make_clip
from .recorded import Worst, arrays, largest, nchw, sampled
from .stages import at, heads, predict

SIZES = ("250x333", "360x640")
# Largest differences of a float32 from a float64 network, see README.md. Both sides are float32 here, so
# twice that is allowed between them.
NOISE = {
    "C2": 1e-5, "C3": 1e-4, "C4": 2e-4, "C5": 4e-4,
    "P2": 9e-5, "P3": 9e-5, "P4": 9e-5, "P5": 9e-5, "P6": 9e-5,
    "rpn_cls": 1.2e-4, "rpn_reg": 2e-5, "roi_feats7": 5e-5, "cls_score": 2e-4, "bbox_pred": 5e-5,
    "mask_logits": 1.4e-4,
}  # fmt: skip
TOLERANCES = {stage: 2 * noise for stage, noise in NOISE.items()}
BOXES, SCORES, MASK_PIXELS = 0.017, 1e-4, 203
# Not in README.md. Embeddings at the same boxes; their products, up to 60, at slightly different boxes; match
# scores, which include the logarithm of detection scores down to 0.01.
EMBEDDINGS, PRODUCTS, MATCH = 4e-4, 5e-3, SCORES / 0.01


def frames(recorded: dict[str, np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray, tuple[int, int]]]:
    """A clip's frames as the network takes them: images (1, H, W, 3), sizes (1, 2), original (h, w)."""
    for frame in make_clip(*map(int, recorded["clip_args"]))["frames"]:
        size = fit_size(*frame.shape[:2], 640, 360)
        bucket = bucket_for(*size, [(384, 640), (384, 480)])
        yield (
            pad_image(resize_image(frame, *size), *bucket)[None],
            np.array([size], np.int32),
            frame.shape[:2],
        )


def mmtracking_rows(size: str) -> Worst:
    name = f"infer_A_{size}"
    recorded = arrays(name)
    config, run = predict("mm", 0.01, 100)
    tracker = Tracker(AssociationOptions(**config.inference.association))
    rows = Worst(name)
    for t, (images, sizes, original) in enumerate(frames(recorded)):
        frame = {key[3:]: value for key, value in recorded.items() if key.startswith(f"f{t}/")}
        detections, parts = jax.device_get(run(images, sizes))
        pyramid_rows(rows, frame, parts, config.model.anchors)
        region_rows(rows, "mm", frame, parts, np.asarray)

        count = len(frame["det_bboxes"])
        order = detection_order(*(x[0] for x in (detections.scores, detections.labels, detections.valid)), 0)
        rows.exact("number of detections", detections.valid.sum(), count)
        rows.exact("detections regrouped by class", order, frame["track_order"])
        boxes = boxes_at_frame_size(detections.boxes[0], sizes[0], original)[:count]
        rows.add("detected boxes, px", BOXES, largest(boxes, frame["det_bboxes"][:, :4]))
        rows.add("scores", SCORES, largest(detections.scores[0, :count], frame["det_bboxes"][:, 4]))
        rows.exact("labels", detections.labels[0, :count], frame["det_labels"])
        mask_rows(rows, frame, detections.masks[0, :count], boxes, original, False)
        scale = np.tile(sizes[0][::-1] / original[::-1], 2).astype(np.float32)
        at_boxes = at(heads("mm"), parts, frame["det_bboxes"][:, :4] * scale, frame["det_labels"])
        rows.add(
            "mask_logits", TOLERANCES["mask_logits"], sampled(frame, "mask_logits", at_boxes["mask_logits"])
        )
        difference = largest(at_boxes["embeddings"][order][:, ::16], frame["embed64"])
        rows.add("embeddings", EMBEDDINGS, difference)

        boxes, embeddings = boxes[order], detections.embeddings[0][order]
        seen = Frame(boxes, detections.scores[0][order], detections.labels[0][order], embeddings)
        if not t:
            fixed_rows(rows, recorded, parts)
        else:
            rows.exact("ids in memory", tracker._memory.ids, frame["mem_ids"])
            products = np.pad(embeddings @ tracker._memory.looks[:, 0].T, ((0, 0), (1, 0)))
            rows.add("products with memory", PRODUCTS, largest(products, frame["sim_logits"]))
            scores = match_scores(seen, tracker._memory, tracker.options)
            rows.add("match scores", MATCH, largest(scores, frame["match_scores"]))
        rows.exact("track ids", tracker.update(seen), frame["assigned_ids"])
    return rows


def original_rows(size: str, setting: str) -> Worst:
    name = f"orig_infer_A_{size}_{setting}"
    recorded = arrays(name)
    config, run = predict("orig", float(recorded["score_thr"]), int(recorded["max_per_img"]))
    association = AssociationOptions(**config.inference.association)
    tracker = Tracker(association)
    rows = Worst(name)
    for t, (images, sizes, original) in enumerate(frames(recorded)):
        frame = {key[3:]: value for key, value in recorded.items() if key.startswith(f"f{t}/")}
        detections, parts = jax.device_get(run(images, sizes))
        if "P2" in frame:
            pyramid_rows(rows, frame, parts, config.model.anchors)
            region_rows(rows, "orig", frame, parts, continuous)
        order = detection_order(
            *(x[0] for x in (detections.scores, detections.labels, detections.valid, detections.cut)),
            "score",
        )
        count = len(frame["det_bboxes"])
        rows.exact("number of detections", len(order), count)
        boxes = pixel_boxes_at_frame_size(detections.boxes[0], fit_scale(*original, 640, 360))[order]
        rows.add("detected boxes, px", BOXES, largest(last_pixel(boxes), frame["det_bboxes"][:, :4]))
        scores, labels = detections.scores[0][order], detections.labels[0][order]
        rows.add("scores", SCORES, largest(scores, frame["det_bboxes"][:, 4]))
        rows.exact("labels", labels, frame["det_labels"])
        if "mask_logits" in frame:
            theirs = frame["det_bboxes"][:, :4] * np.float32(frame["scale_factor"])
            at_boxes = at(heads("orig"), parts, continuous(theirs), frame["det_labels"])
            difference = sampled(frame, "mask_logits", at_boxes["mask_logits"])
            rows.add("mask_logits", TOLERANCES["mask_logits"], difference)
            mask_rows(rows, frame, detections.masks[0][order], boxes, original, True)
        seen = Frame(boxes, scores, labels, detections.embeddings[0][order])
        if "comp_scores" in frame:
            before = tracker._memory
            rows.add(
                "boxes in memory, px",
                BOXES,
                largest(last_pixel(before.boxes), frame["mem_boxes_before"][:, :4]),
            )
            rows.exact("labels in memory", before.labels, frame["mem_labels_before"])
            products = np.pad(seen.embeddings @ before.looks[:, 0].T, ((0, 0), (1, 0)))
            rows.add("products with memory", PRODUCTS, largest(products, frame["match_score"]))
            ours = match_scores(seen, before, association)
            rows.add("match scores", MATCH, largest(ours, frame["comp_scores"]))
        ids = tracker.update(seen)
        rows.exact("track ids", ids, only_last(frame["det_obj_ids"]))
        if "mem_boxes_after" in frame:
            after = tracker._memory
            rows.add(
                "boxes in memory, px",
                BOXES,
                largest(last_pixel(after.boxes), frame["mem_boxes_after"][:, :4]),
            )
            rows.exact("labels in memory", after.labels, frame["mem_labels_after"])
    return rows


def continuous(boxes: np.ndarray) -> np.ndarray:
    """Convert boxes by first and last pixel to ours."""
    return np.asarray(boxes, np.float32) + np.array([0, 0, 1, 1], np.float32)


def last_pixel(boxes: np.ndarray) -> np.ndarray:
    """Convert our boxes to the authors', which name the first and the last pixel."""
    return np.asarray(boxes) - np.array([0, 0, 1, 1], np.float32)


def only_last(ids: np.ndarray) -> list[int]:
    """The authors keep the ids of displaced detections, and then the last detection of each id."""
    return [i if i not in ids[k + 1 :] else -1 for k, i in enumerate(ids.tolist())]


def pyramid_rows(
    rows: Worst, frame: dict[str, np.ndarray], parts: dict[str, Any], anchors: ConfigDict
) -> None:
    """Backbone, FPN and the RPN's outputs of a frame."""
    rows.add("network input", 2e-6, sampled(frame, "img", nchw(parts["image"])))
    levels = dict(zip(("C2", "C3", "C4", "C5"), parts["backbone"]["__call__"][0]))
    levels |= dict(zip(("P2", "P3", "P4", "P5", "P6"), parts["fpn"]["__call__"][0]))
    logits, deltas = (x[0] for x in parts["rpn_head"]["__call__"][0])
    start = 0
    for i in range(len(anchors.strides)):
        height, width = levels[f"P{i + 2}"].shape[1:3]
        end = start + height * width
        levels[f"rpn_cls{i}"] = logits.reshape(len(deltas), -1)[start:end].reshape(height, width, -1)
        levels[f"rpn_reg{i}"] = deltas[start:end].reshape(height, width, -1)
        start = end
    for key, value in levels.items():
        if key in frame:
            tolerance = TOLERANCES[key.rstrip("01234") if "rpn" in key else key]
            rows.add(key, tolerance, sampled(frame, key, nchw(value)))


def region_rows(
    rows: Worst,
    form: str,
    frame: dict[str, np.ndarray],
    parts: dict[str, Any],
    convert: Callable[[np.ndarray], np.ndarray],
) -> None:
    """Proposals as a set, and the box head's outputs for the recorded proposals."""
    if "proposals" not in frame:
        return
    proposals, valid = (x[0] for x in parts["propose"][0])
    ours, theirs = proposals[valid], convert(frame["proposals"][:, :4])
    rows.exact("number of proposals", len(ours), len(theirs))
    distance = np.abs(ours[:, None] - theirs[None]).max(-1)
    difference = max(distance.min(0).max(), distance.min(1).max())
    rows.add("proposals as a set, px", BOXES, difference)
    out = at(heads(form), parts, theirs)
    logits, deltas = out["cls_score"], out["bbox_pred"]
    if form == "orig":  # background first, with deltas of its own
        logits, deltas = np.roll(logits, 1, axis=1), np.pad(deltas, ((0, 0), (4, 0)))
    rows.add("roi_feats7", TOLERANCES["roi_feats7"], sampled(frame, "roi_feats7", nchw(out["roi7"])))
    rows.add("cls_score", TOLERANCES["cls_score"], sampled(frame, "cls_score", logits))
    rows.add("bbox_pred", TOLERANCES["bbox_pred"], sampled(frame, "bbox_pred", deltas))


def fixed_rows(rows: Worst, recorded: dict[str, np.ndarray], parts: dict[str, Any]) -> None:
    """The heads on the first frame at made-up boxes of all sizes; the mask head for every class."""
    boxes = recorded["fixed_rois"][:, 1:]
    rows.exact("fixed boxes: levels", roi_levels(boxes, 4, 56.0), recorded["fixed_rois_level"])
    out = at(heads("mm"), parts, boxes)
    for key, ours in (("roi7", nchw(out["roi7"])), ("roi14", nchw(out["roi14"]))):
        rows.add(f"fixed boxes: {key}", TOLERANCES["roi_feats7"], sampled(recorded, f"fixed_{key}", ours))
    for key in ("cls_score", "bbox_pred"):
        rows.add(f"fixed boxes: {key}", TOLERANCES[key], sampled(recorded, f"fixed_{key}", out[key]))
    every = []
    for labels in np.arange(40).reshape(5, 8):  # every box for eight classes at a time
        repeated, labels = np.tile(boxes, (8, 1)), np.repeat(labels, len(boxes))
        every += np.split(at(heads("mm"), parts, repeated, labels)["mask_logits"], 8)
    difference = sampled(recorded, "fixed_mask_pred", np.stack(every, axis=1))
    rows.add("fixed boxes: mask_logits", TOLERANCES["mask_logits"], difference)
    embeddings = out["embeddings"]
    rows.add("fixed boxes: embeddings", EMBEDDINGS, largest(embeddings[:, ::16], recorded["fixed_embed64"]))
    products = embeddings @ embeddings.T
    rows.add("fixed boxes: products", PRODUCTS, largest(products, recorded["fixed_embed_gram"]))


def mask_rows(
    rows: Worst,
    frame: dict[str, np.ndarray],
    probabilities: np.ndarray,
    boxes: np.ndarray,
    original: tuple[int, int],
    pixel_boxes: bool,
) -> None:
    masks = paste_masks(probabilities, boxes, *original, pixel_boxes)
    packed = np.packbits(masks.reshape(len(masks), -1), axis=1)
    wrong = np.unpackbits(packed ^ frame["masks_packed"].reshape(packed.shape)).sum()
    rows.add("mask pixels of a frame", MASK_PIXELS, float(wrong))
