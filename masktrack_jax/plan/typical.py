"""Recorded outputs of a network, to count the turns of loops with: proposals and class scores.

`typical_boxes.npz` holds, of three frames, the RPN's best boxes of each level before NMS with their ranks,
and the best classes of the proposals that remain. They are those of the network of tests/goldens, whose
weights are made and not trained; `python -m tests.goldens.typical` writes them. Boxes are fractions of the
frame, in 16 bits.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from masktrack_jax.models import box_head, rpn_head
from masktrack_jax.models.masktrack_rcnn import MaskTrackRCNN
from masktrack_jax.ops import boxes as box_ops
from masktrack_jax.ops.anchors import Anchors

FILE = Path(__file__).parent / "typical_boxes.npz"
FULL = 65535.0  # of 16 bits
BEST, STEP = 4.0, 0.01  # logit of the best candidate, and from each to the next: their order is recorded
ABSENT = -20.0  # logit of the anchors that are no candidates, and of other classes


class Typical(NamedTuple):
    """What a network finds in some frames."""

    boxes: Float[Any, "frames candidates 4"]  # as fractions of the frame
    logits: Float[Any, "frames candidates"]
    levels: Int[np.ndarray, " candidates"]  # the same in all frames
    classes: Float[Any, "frames proposals logits"]  # background last, with logit 0


def typical() -> Typical:
    """The recorded outputs."""
    with np.load(FILE) as file:
        found = dict(file)
    boxes = found["boxes"].astype(np.float32) / FULL
    best, count = found["classes"].astype(int), int(found["count"])
    classes = np.full((*best.shape[:2], count), ABSENT, np.float32)
    np.put_along_axis(classes, best, found["class_logits"].astype(np.float32), axis=-1)
    classes[..., -1] = 0.0
    empty = np.any(boxes[..., 2:] <= boxes[..., :2], axis=-1)  # outside the frame
    logits = np.where(empty, ABSENT, BEST - STEP * found["ranks"].astype(np.float32))
    return Typical(boxes, logits, found["levels"].astype(int), classes)


def frames(found: Typical, count: int) -> Typical:
    """The outputs of `count` frames: the recorded ones in turn, every second time mirrored."""
    turn = np.arange(count) % len(found.boxes)
    mirrored = (np.arange(count) // len(found.boxes) % 2).astype(bool)[:, None, None]
    boxes = jnp.asarray(found.boxes)[turn]
    other = jnp.stack([1 - boxes[..., 2], boxes[..., 1], 1 - boxes[..., 0], boxes[..., 3]], axis=-1)
    return Typical(
        jnp.where(mirrored, other, boxes),
        jnp.asarray(found.logits)[turn],
        found.levels,
        jnp.asarray(found.classes)[turn],
    )


@contextmanager
def instead_of_heads(
    model: MaskTrackRCNN, found: Typical, bucket: tuple[int, int], size: tuple[int, int]
) -> Iterator[None]:
    """Let the RPN and the box head of a traced `model` return `found`; gradients stay those of their outputs.

    bucket, size: height and width of the images with padding and without.
    """

    def intercept(call: Callable, arguments: Any, options: Any, context: nn.module.InterceptorContext) -> Any:
        own = call(*arguments, **options)
        if context.method_name != "__call__":
            return own
        if isinstance(context.module, rpn_head.RPNHead):
            return jax.tree.map(_replace, own, rpn_outputs(model, own, found, bucket, size))
        if isinstance(context.module, box_head.BoxHead):
            return jax.tree.map(_replace, own, box_outputs(own, found, model.config.proposals.post_nms))
        return own

    with nn.intercept_methods(intercept):
        yield


@jax.custom_jvp
def _replace(own: Array, other: Array) -> Array:
    """The values of `other` with the gradient of `own`."""
    return other.astype(own.dtype)


_replace.defjvps(lambda tangent, _, own, other: tangent, None)


def rpn_outputs(
    model: MaskTrackRCNN,
    own: tuple[Array, Array],
    found: Typical,
    bucket: tuple[int, int],
    size: tuple[int, int],
) -> tuple[Array, Array]:
    """Logits and deltas in the form of `own` that make the candidates of `found` the best of their levels."""
    anchors, batch = model.anchors(*bucket), own[0].shape[0]
    height, width = size
    scale = np.array([width, height, width, height], np.float32)
    placed = [anchors_of(anchors, boxes * scale, found.levels) for boxes in found.boxes]
    rows = jnp.asarray(np.stack([rows for rows, _ in placed])[np.arange(batch) % len(placed)])
    kept = placed[0][1]
    found = frames(found, batch)
    wanted = box_ops.encode(jnp.asarray(anchors.boxes)[rows], found.boxes[:, kept] * scale, rpn_head.STDS)
    image, count = jnp.arange(batch)[:, None], len(anchors.boxes)
    logits = jnp.full((batch, count), ABSENT).at[image, rows].set(found.logits[:, kept])
    deltas = jnp.zeros((batch, count, 4)).at[image, rows].set(wanted)
    return logits, deltas.reshape(own[1].shape)  # of anchors or of cells, in the same order


def anchors_of(
    anchors: Anchors, boxes: Float[np.ndarray, "candidates 4"], levels: Int[np.ndarray, " candidates"]
) -> tuple[Int[np.ndarray, " kept"], Int[np.ndarray, " kept"]]:
    """An anchor for each candidate of a frame, and the candidates for which their levels have one.

    Deltas have a limit, so a thin box needs an anchor of a similar shape. Its place does not matter.
    """
    last = int(anchors.levels.max())
    rows, kept = [], []
    for level in range(last + 1):
        places = np.flatnonzero(anchors.levels == level)
        candidates = np.flatnonzero(np.minimum(levels, last) == level)[: len(places)]
        shapes, kind = np.unique(_log_sizes(anchors.boxes[places]), axis=0, return_inverse=True)
        free = [list(places[kind.reshape(-1) == k]) for k in range(len(shapes))]
        far = np.abs(_log_sizes(boxes[candidates])[:, None] - shapes).max(-1)
        for i in np.argsort(-far.min(1), kind="stable"):
            best = next(k for k in np.argsort(far[i]) if free[k])
            rows.append(free[best].pop())
            kept.append(candidates[i])
    order = np.argsort(kept)
    return np.array(rows)[order], np.array(kept)[order]


def _log_sizes(boxes: Float[np.ndarray, "boxes 4"]) -> Float[np.ndarray, "boxes 2"]:
    sizes = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3)
    return np.round(np.log(sizes), 3)


def box_outputs(own: tuple[Array, Array], found: Typical, proposals: int) -> tuple[Array, Array]:
    """Class logits and deltas in the form of `own`: the recorded logits for the best proposals, no deltas."""
    logits, deltas = own
    classes = logits.shape[-1] - 1
    batch = max(logits.shape[0] // proposals, 1)
    recorded = frames(found, batch).classes
    rows = min(proposals, recorded.shape[1])
    # Recorded classes that the network lacks are left out; classes that the recording lacks never occur.
    known = min(classes, recorded.shape[-1] - 1)
    out = jnp.full((batch, proposals, classes + 1), ABSENT).at[..., -1].set(0.0)
    out = out.at[:, :rows, :known].set(recorded[:, :rows, :known])
    out = out.at[:, :rows, -1].set(recorded[:, :rows, -1])
    flat = out.reshape(-1, classes + 1)
    short = logits.shape[0] - flat.shape[0]  # in training, RoIs are not the proposals
    flat = jnp.pad(flat, ((0, max(short, 0)), (0, 0)))[: logits.shape[0]]
    return flat, jnp.zeros_like(deltas)
