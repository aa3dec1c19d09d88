"""Match scores of detections with "new" and with remembered objects: learned cue, score, IoU and label.

`SIMILARITIES` holds the learned cues by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from masktrack_jax.tracking.memory import Frame, Memory

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from masktrack_jax.tracking.options import AssociationOptions


class Similarity(Protocol):
    """Return the learned cue (n, 1 + k) of a frame's n detections, column 0 for "new", then k objects."""

    def __call__(self, frame: Frame, memory: Memory, options: AssociationOptions, /) -> np.ndarray: ...


def match_scores(frame: Frame, memory: Memory, options: AssociationOptions) -> np.ndarray:
    """Return the match scores (n, 1 + k) float64 of n detections with "new" (column 0) and k objects.

    The match score is learned cue + α log(score) + β [0, IoU with the last box] + γ [1, same label]. With the
    learned cue `softmax` these are equations 1 and 4 of the paper. "New" has IoU 0 and label term 1, as in
    mmtracking and the authors' code. With `iou_frames`, the IoU of an object unseen for u frames is scaled by
    max(0, 1 − u / `iou_frames`). With `same_label`, objects of another label get −inf.
    """
    learned = SIMILARITIES[options.similarity if options.use_embedding else "none"](frame, memory, options)
    overlaps = box_iou(frame.boxes, memory.boxes)
    if options.iou_frames:
        overlaps = overlaps * np.maximum(1 - memory.unseen / options.iou_frames, 0)
    same_label = frame.labels[:, None] == memory.labels
    # A score of exactly 0 would make a whole row -inf and hide the other cues.
    log_scores = np.log(np.maximum(frame.scores, np.finfo(np.float32).tiny), dtype=np.float64)
    total = (
        learned
        + options.score_weight * log_scores[:, None]
        + options.iou_weight * with_new(overlaps, 0)
        + options.label_weight * with_new(same_label, 1)
    )
    if options.same_label:
        total[:, 1:][~same_label] = -np.inf
    return total


def softmax(frame: Frame, memory: Memory, options: AssociationOptions) -> np.ndarray:
    """log softmax([t, e·m₁ … e·m_k]) with t = `new_threshold`; equation 1 of the paper has t = 0."""
    return log_softmax(with_new(compare(frame.embeddings, memory, options), options.new_threshold))


def cosine(frame: Frame, memory: Memory, options: AssociationOptions) -> np.ndarray:
    """[t, cos(e, m₁) … cos(e, m_k)], t = `new_threshold`."""
    return with_new(compare(frame.embeddings, memory, options, unit), options.new_threshold)


def bisoftmax(frame: Frame, memory: Memory, options: AssociationOptions) -> np.ndarray:
    """[t, (softmax over objects of e·m + softmax over detections of e·m) / 2], t = `new_threshold`.

    Pang et al., "Quasi-Dense Similarity Learning for Multiple Object Tracking", CVPR 2021, section 3.3
    (there t = 0.5). The value is close to 1 for a detection and an object that are each other's best match,
    and exactly 1 if there are no others.
    """
    products = compare(frame.embeddings, memory, options)
    if products.size:
        products = sum(np.exp(log_softmax(products, axis)) for axis in (0, 1)) / 2
    return with_new(products, options.new_threshold)


def none(frame: Frame, memory: Memory, options: AssociationOptions) -> np.ndarray:
    """[t, 0 … 0], t = `new_threshold`: no learned cue, so the other cues decide."""
    return with_new(np.zeros((len(frame.boxes), len(memory))), options.new_threshold)


SIMILARITIES: dict[str, Similarity] = {
    "softmax": softmax,
    "cosine": cosine,
    "bisoftmax": bisoftmax,
    "none": none,
}


def compare(
    embeddings: np.ndarray,
    memory: Memory,
    options: AssociationOptions,
    form: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> np.ndarray:
    """Return the inner products (n, k) of embeddings (n, E) with the objects' looks.

    For an object with several looks, the result is the mean of the products, or with `bank_compare` "max" the
    largest. `form` is applied to both sides (…, E) first. It must map zero to zero, since unused looks are
    zero.
    """
    embeddings, looks = form(embeddings), form(memory.looks)
    if options.bank_compare == "mean":  # the mean of the products equals the product with the mean
        return embeddings @ (looks.sum(axis=1) / memory.held[:, None].astype(looks.dtype)).T
    k, size, width = looks.shape
    products = (embeddings @ looks.reshape(k * size, width).T).reshape(len(embeddings), k, size)
    return np.where(np.arange(size) < memory.held[:, None], products, -np.inf).max(axis=2)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (…, E) scaled to length 1; zero stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def with_new(values: np.ndarray, new: float) -> np.ndarray:
    """Return values (n, k) with a column of `new` prepended, as float64."""
    return np.hstack([np.full((len(values), 1), new, np.float64), values])


def box_iou(boxes: ArrayLike, others: ArrayLike) -> np.ndarray:
    """Return the intersection over union (n, k) of boxes (n, 4) and others (k, 4); 0 for empty boxes."""
    boxes, others = np.asarray(boxes, np.float64), np.asarray(others, np.float64)
    upper_left = np.maximum(boxes[:, None, :2], others[None, :, :2])
    lower_right = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    intersection = np.prod(np.maximum(lower_right - upper_left, 0), axis=2)
    area, other_area = (np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (boxes, others))
    union = area[:, None] + other_area[None] - intersection
    return intersection / np.maximum(union, 1e-6)


def log_softmax(logits: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return log(softmax(logits)) over an axis, without overflow."""
    shifted = logits - logits.max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
