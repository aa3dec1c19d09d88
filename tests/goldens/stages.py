"""Intermediate results of the network, jitted: for whole frames, and of the heads at given boxes."""

import copy
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from masktrack_jax.models.masktrack_rcnn import MaskTrackRCNN, build_model, normalise

from .network import DTYPE, network

STAGES = {"__call__": ("backbone", "fpn", "rpn_head"), "propose": ("",)}


@cache
def predict(form: str, score_threshold: float, max_detections: int) -> tuple[ConfigDict, Callable[..., Any]]:
    """`detect` of a form, jitted: images, sizes → `Detections` and the outputs of its parts."""
    about, variables = network(form)
    config = copy.deepcopy(about.config)
    config.model.dtype = DTYPE
    config.model.detections.update({"score_threshold": score_threshold, "max_detections": max_detections})
    model = build_model(config, len(about.categories))

    def wanted(module: nn.Module, method: str) -> bool:
        return method in STAGES and (module.name or "") in STAGES[method]

    @jax.jit
    def run(variables: dict[str, Any], images: jax.Array, sizes: jax.Array) -> tuple[Any, dict[str, Any]]:
        detections, state = model.apply(
            variables, images, sizes, method="detect", capture_intermediates=wanted, mutable=["intermediates"]
        )
        return detections, state["intermediates"] | {"image": normalise(images, sizes)}

    return config, partial(run, jax.device_put(variables))


@cache
def heads(form: str) -> Callable[..., dict[str, jax.Array]]:
    """The heads of a form at given boxes, jitted: features P2–P6, boxes (N, 4), labels (N,), masked → a dict.

    The mask logits are those of the first `masked` boxes.

    Boxes of two float32 networks differ by hundredths of a pixel, which changes their features by more than
    the noise of a stage. At the same boxes each stage can be compared on its own.
    """
    about, variables = network(form)
    config = copy.deepcopy(about.config)
    config.model.dtype = DTYPE

    def at_boxes(
        model: MaskTrackRCNN,
        features: tuple[jax.Array, ...],
        boxes: jax.Array,
        labels: jax.Array,
        masked: jax.Array,
    ) -> dict[str, jax.Array]:
        valid = jnp.ones((1, len(boxes)), bool)
        with_mask = jnp.arange(len(boxes))[None] < masked
        roi = model.pool(features, boxes[None], valid, 7)
        logits, deltas = model.box_head(roi)
        return {
            "roi7": roi,
            "roi14": model.pool(features, boxes[None], valid, 14),
            "cls_score": logits,
            "bbox_pred": deltas.reshape(len(boxes), -1),
            "mask_logits": model.mask_logits(features, boxes[None], with_mask, labels[None])[0],
            "embeddings": model.embed(roi, 1)[0],
        }

    run = nn.apply(at_boxes, build_model(config, len(about.categories)))
    return partial(jax.jit(run), jax.device_put(variables))


def at(
    run: Callable[..., Any], parts: dict[str, Any], boxes: np.ndarray, labels: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """`heads` at up to 200 boxes, padded to 200, so that it compiles once; without labels no masks."""
    count, room = len(boxes), 200 - len(boxes)
    boxes = np.pad(np.asarray(boxes, np.float32), ((0, room), (0, 0)))
    masked = 0 if labels is None else count
    labels = np.zeros(200, np.int32) if labels is None else np.pad(labels, (0, room)).astype(np.int32)
    out = run(parts["fpn"]["__call__"][0], boxes, labels, masked)
    return {name: np.asarray(value)[:count] for name, value in out.items()}
