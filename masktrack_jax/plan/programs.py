"""The two programs of a config, inference and the training step: lowering, and counting their loops."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding
from ml_collections import ConfigDict, FrozenConfigDict

from masktrack_jax.data.batches import Frames, FrameTargets, PairBatch, Provenance
from masktrack_jax.models.forms import forms_of, use_forms
from masktrack_jax.models.masktrack_rcnn import build_model
from masktrack_jax.models.resnet import frozen_names
from masktrack_jax.plan.counts import Site, count
from masktrack_jax.plan.typical import instead_of_heads, typical
from masktrack_jax.training import schedule
from masktrack_jax.training.run import check_divides
from masktrack_jax.training.step import (
    AXIS,
    StepBatch,
    create_train_state,
    guarded,
    parallel,
    split_batch,
    train_step,
)

OBJECTS = 4  # objects of a frame in training


class Work(NamedTuple):
    """A program, and what is counted of it on this machine."""

    name: str  # "detect" or "train"
    batch: int  # frames of a call, or pairs of a step over all devices
    lower: Callable[[], Any]  # lowers it for the target's devices
    counted: Callable[[], dict[Site, float]]  # how often each part of it runs on one device


def frame_sizes(config: ConfigDict) -> tuple[tuple[int, int], tuple[int, int]]:
    """The bucket that the plan is for, the config's first, and the size of a frame in it: height, width."""
    bucket = tuple(map(int, config.data.buckets[0]))
    edges = sorted(map(int, config.inference.scale))
    size = edges if bucket[0] <= bucket[1] else edges[::-1]
    return bucket, tuple(map(min, zip(size, bucket)))  # type: ignore[return-value]


def detect(config: ConfigDict, classes: int, platform: str, devices: Sequence[Any], batch: int) -> Work:
    """Inference of `batch` frames on one device."""
    forms = forms_of(platform, devices[0].device_kind)
    model = build_model(config, classes)
    bucket, size = frame_sizes(config)
    images = np.zeros((batch, *bucket, 3), np.uint8)
    sizes = np.tile(np.array(size, np.int32), (batch, 1))
    variables = jax.eval_shape(model.init_variables, jax.random.key(0))

    def run(variables: Any, images: Any, sizes: Any) -> Any:
        return model.apply(variables, images, sizes, method="detect")

    def lower() -> Any:
        place = SingleDeviceSharding(devices[0])
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), (variables, images, sizes)
        )
        with use_forms(forms):
            return jax.jit(run).lower(*shapes)

    def counted() -> dict[Site, float]:
        found = typical()
        with use_forms(forms), instead_of_heads(model, found, bucket, size):
            return count(run, zeros(variables), images, sizes)

    return Work("detect", batch, lower, counted)


def train(
    config: ConfigDict, classes: int, platform: str, devices: Sequence[Any], batch: int, steps: int
) -> Work:
    """The training step of `batch` pairs over all devices."""
    check_divides(batch, len(devices), config.train.accumulate)
    forms = forms_of(platform, devices[0].device_kind)
    model = build_model(config, classes)
    variables = jax.eval_shape(model.init_variables, jax.random.key(0))
    frozen = frozen_names(config.model.backbone.frozen_stages)
    mask = schedule.trainable(variables["params"], frozen, config.train.only)
    optimizer = schedule.make_optimizer(config.optimizer, steps, mask)
    options = FrozenConfigDict(config.train)
    step = guarded(
        partial(train_step, model=model, optimizer=optimizer, options=options), config.train.on_nan
    )
    state = jax.eval_shape(partial(create_train_state, optimizer=optimizer), jax.random.key(0), variables)
    pairs = split_batch(example_batch(config, classes, batch), len(devices), 0)

    def lower() -> Any:
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (state, pairs))
        with use_forms(forms):
            program: Any = parallel(step, devices)
            return program.lower(*shapes)

    def counted() -> dict[Site, float]:
        bucket, size = frame_sizes(config)
        share: StepBatch = jax.tree.map(lambda x: x[0], pairs)
        with use_forms(forms), instead_of_heads(model, typical(), bucket, size):
            return count(step, zeros(state), share, axis=AXIS)

    return Work("train", batch, lower, counted)


def zeros(shapes: Any) -> Any:
    """Arrays of zeros of these shapes; keys of random numbers stay keys."""

    def zero(x: Any) -> Any:
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        return np.zeros(x.shape, x.dtype)

    return jax.tree.map(zero, shapes)


def example_batch(config: ConfigDict, classes: int, pairs: int) -> PairBatch:
    """A batch as the pipeline makes it, with the best typical proposals that lie apart as its objects."""
    data, (bucket, size) = config.data, frame_sizes(config)
    height, width = size
    found = typical()
    n = min(OBJECTS, data.max_objects)
    turn = np.arange(pairs) % len(found.boxes)
    boxes = np.zeros((pairs, data.max_objects, 4), np.float32)
    chosen = np.stack([_apart(*rows, n) for rows in zip(found.boxes, found.logits)])
    boxes[:, :n] = chosen[turn] * np.array([width, height, width, height], np.float32)
    valid = np.tile(np.arange(data.max_objects) < n, (pairs, 1))
    targets = FrameTargets(
        labels=np.tile(np.arange(data.max_objects, dtype=np.int32) % classes, (pairs, 1)),
        masks=np.full((pairs, data.max_objects, bucket[0], -(-bucket[1] // 8)), 255, np.uint8),
        matches=np.where(valid, np.arange(1, data.max_objects + 1), 0).astype(np.int32),
    )

    def frames(targets: FrameTargets | None) -> Frames:
        return Frames(
            image=np.zeros((pairs, *bucket, 3), np.float32 if data.float_resize else np.uint8),
            image_size=np.tile(np.array(size, np.int32), (pairs, 1)),
            boxes=boxes,
            valid=valid,
            targets=targets,
        )

    numbers = np.zeros(pairs, np.int32)
    reference = frames(targets if data.both_ways else None)
    return PairBatch(frames(targets), reference, Provenance(*(numbers,) * 4))


def _apart(boxes: np.ndarray, logits: np.ndarray, count: int) -> np.ndarray:
    """The `count` boxes of highest logit that do not overlap, as far as there are so many."""
    kept: list[np.ndarray] = []
    for box in boxes[np.argsort(-logits)]:
        apart = all(np.any(np.maximum(box[:2], b[:2]) >= np.minimum(box[2:], b[2:])) for b in kept)
        if apart and np.all(box[2:] > box[:2]):
            kept.append(box)
        if len(kept) == count:
            break
    return np.stack((kept * count)[:count])
