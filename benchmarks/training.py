"""Times one training step by part: the loss of each part with its gradient, and the whole step.

    python -m benchmarks.training --config configs/masktrack_r50_fpn_youtubevis2019.py --pairs 1
    python -m benchmarks.training --config … --whole --against torchvision

Weights and frames are random, with four objects per frame. Each part is a separate program. The output of the
parts below is its input, and it computes the gradient for that input too. Prints a table, and then a JSON
line.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from benchmarks.common import (
    NUM_CLASSES,
    Times,
    Variables,
    clock,
    compiled,
    load_config,
    plain_work,
    product_rate,
    random_network,
    report,
)
from benchmarks.peer import Peer, add_arguments, ratios
from masktrack_jax.data.batches import FramePairs, Frames, FrameTargets
from masktrack_jax.models.masktrack_rcnn import MaskTrackRCNN, normalise
from masktrack_jax.models.resnet import frozen_names
from masktrack_jax.training import objective, schedule
from masktrack_jax.training.features import RPNOutputs, frame_proposals
from masktrack_jax.training.step import create_train_state, parallel, train_step
from masktrack_jax.training.targets import RoITargets

Output = TypeVar("Output")  # of a part of the network


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--pairs", type=int, default=1, help="pairs per training step")
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--whole", action="store_true", help="time only the whole step")
    parser.add_argument(
        "--accumulate", type=int, help="micro-batches of the whole step; default: as in the config"
    )
    parser.add_argument("--remat", action="store_true", help="recompute the backbone's blocks")
    add_arguments(parser)
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    config.train.accumulate = arguments.accumulate or config.train.accumulate
    config.model.remat = arguments.remat or config.model.remat
    if arguments.pairs % config.train.accumulate:
        parser.error(
            f"--pairs {arguments.pairs} cannot be divided into {config.train.accumulate} micro-batches"
        )
    peer = start_peer(arguments, config) if arguments.against else None
    model, variables = random_network(config)
    batch = random_batch(arguments.pairs, config)
    calls: dict[str, Callable[[], object]] = {}
    work: dict[str, float] = {}
    if not arguments.whole:
        calls, work = parts(model, variables, batch, FrozenConfigDict(config.train))
    calls["step"], compile_s = whole_step(model, variables, config, batch)
    rows = clock(calls, arguments.repeats, peer)
    report(
        f"training, {arguments.pairs} pairs",
        rows,
        work,
        product_rate(),
        config=arguments.config,
        accumulate=config.train.accumulate,
        remat=config.model.remat,
        compile_s=compile_s,
        pairs_a_second=arguments.pairs / rows["step"]["seconds"],
        **(compare(rows, peer) if peer else {}),
    )


def start_peer(arguments: argparse.Namespace, config: ConfigDict) -> Peer:
    """Start a `Peer` that trains on as many frames, with as many samples per frame."""
    train = config.train
    samples = {"rpn_samples": train.rpn.samples, "roi_samples": train.roi.samples}
    numbers = {"images": 2 * arguments.pairs, "objects": 4, "proposals": config.model.proposals.post_nms}
    sizes = {"scale": list(config.inference.scale), "classes": NUM_CLASSES}
    return Peer(
        arguments.against, arguments.peer_python, **{"what": "training", **samples, **numbers, **sizes}
    )


def compare(rows: dict[str, Times], peer: Peer) -> dict[str, Any]:
    """Return the ratio of the peer's step to ours."""
    peer.close()
    return {"ratios": ratios(rows, {"step": (["step"], [f"{peer.name}: step"])}), "peer": peer.about}


def parts(
    model: MaskTrackRCNN, variables: Variables, batch: FramePairs, options: FrozenConfigDict
) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """Return a call of each part and its operations.

    A call runs forward and backward, and computes the gradients of the part's inputs and parameters.
    """
    calls: dict[str, Callable[[], object]] = {}
    work: dict[str, float] = {}
    keys = objective.sample_keys(jax.random.key(0), len(batch.key.image), 0)

    def value(function: Callable[..., Output], *arguments: object) -> Output:
        return jax.jit(nn.apply(function, model))(variables, *arguments)

    def part(name: str, function: Callable[..., Any], inputs: object, *arguments: object) -> None:
        run = nn.apply(function, model)

        def total(params: Variables, inputs: object) -> jax.Array:
            return run({**variables, "params": params}, inputs, *arguments)

        gradient = jax.grad(total, (0, 1))
        program, _ = compiled(gradient, variables["params"], inputs)
        calls[name] = partial(program, variables["params"], inputs)
        work[name] = plain_work(gradient, variables["params"], inputs)

    images = jnp.concatenate([frames.image for frames in batch])
    x = jax.jit(normalise)(images, jnp.concatenate([frames.image_size for frames in batch]))
    part("backbone", lambda m, x: squares(m.backbone(x)), x)
    levels = value(lambda m, x: m.backbone(x), x)
    part("FPN", lambda m, levels: squares(m.fpn(levels)), levels)
    features = tuple(f[: len(keys)] for f in value(lambda m, levels: m.fpn(levels), levels))
    rpn_keys, roi_keys = jax.vmap(jax.random.split, out_axes=1)(keys)

    def rpn(m: MaskTrackRCNN, f: tuple[jax.Array, ...]) -> jax.Array:
        return mean(objective.rpn_terms(m, batch.key, rpn_keys, RPNOutputs(*m.rpn_head(f)), options.rpn))

    def draw(m: MaskTrackRCNN, f: tuple[jax.Array, ...]) -> RoITargets:
        proposals = frame_proposals(m, RPNOutputs(*m.rpn_head(f)), batch.key)
        return objective.draw_rois(m, batch.key, roi_keys, proposals, options.roi)

    part("RPN", rpn, features)
    rois = value(draw, features)
    part(
        "boxes, masks",
        lambda m, f: mean(objective.box_and_mask_terms(m, batch.key, f, rois, options).terms),
        features,
    )
    return calls, work


def squares(arrays: Iterable[jax.Array]) -> jax.Array:
    """Return a loss of feature maps: the sum of their mean squares."""
    return sum(jnp.mean(jnp.square(x)) for x in arrays)


def mean(terms: Mapping[str, tuple[jax.Array, jax.Array]]) -> jax.Array:
    """Return the sum of losses, each given as (sum, count)."""
    return sum(total / jnp.maximum(count, 1) for total, count in terms.values())


def whole_step(
    model: MaskTrackRCNN, variables: Variables, config: ConfigDict, batch: FramePairs
) -> tuple[Callable[[], object], float]:
    """Return a call that runs one step on one device, and the seconds spent compiling it."""
    mask = schedule.trainable(variables["params"], frozen_names(config.model.backbone.frozen_stages))
    optimizer = schedule.make_optimizer(config.optimizer, 1000, mask)
    state = create_train_state(jax.random.key(1), jax.tree.map(jnp.copy, variables), optimizer)
    step = partial(train_step, model=model, optimizer=optimizer, options=FrozenConfigDict(config.train))
    batch = jax.tree.map(lambda x: x[None], batch)
    program, seconds = compiled(parallel(step, devices=jax.local_devices()[:1]), state, batch)

    def step_once() -> object:
        nonlocal state
        state, metrics = program(state, batch)
        return metrics

    return step_once, seconds


def random_batch(pairs: int, config: ConfigDict) -> FramePairs:
    """Return pairs of noise frames with four boxes each."""
    rng = np.random.default_rng(0)
    height, width = config.data.buckets[0]
    objects = config.data.max_objects
    corners = rng.uniform(0, [width * 0.6, height * 0.6], (pairs, objects, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(40, 130, corners.shape)], -1)
    targets = FrameTargets(
        labels=rng.integers(0, NUM_CLASSES, (pairs, objects)).astype(np.int32),
        masks=np.full((pairs, objects, height, width // 8), 255, np.uint8),
        matches=np.tile(np.arange(1, objects + 1, dtype=np.int32), (pairs, 1)),
    )

    def frames(targets: FrameTargets | None) -> Frames:
        return Frames(
            image=rng.integers(0, 256, (pairs, height, width, 3), np.uint8),
            image_size=np.full((pairs, 2), config.inference.scale[::-1], np.int32),
            boxes=boxes.astype(np.float32),
            valid=np.tile(np.arange(objects) < 4, (pairs, 1)),
            targets=targets,
        )

    return FramePairs(key=frames(targets), reference=frames(None))


if __name__ == "__main__":
    main()
