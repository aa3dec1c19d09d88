"""Time, memory and compilation of one training step and of inference, on this machine.

    python benchmarks/step.py --config configs/masktrack_r50_fpn_youtubevis2019.py [--repeats 3]

Random weights and frames of the config's first bucket. Prints a table and, last, a JSON line.
"""

import argparse
import importlib.util
import json
import resource
import time
from functools import partial

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from masktrack_jax.models.masktrack_rcnn import build_model
from masktrack_jax.models.resnet import frozen_names
from masktrack_jax.training import schedule
from masktrack_jax.training.step import create_train_state, parallel, train_step

NUM_CLASSES = 40


def main():
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=1, help="pairs a training step")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    model = build_model(config, NUM_CLASSES)
    variables = model.init_variables(jax.random.key(0))
    rows = {"inference": inference(model, variables, config, arguments.repeats)}
    rows["training"] = training(model, variables, config, arguments.pairs, arguments.repeats)
    print(f"{'':<10} compile s  seconds  peak GiB")
    for name, row in rows.items():
        print(f"{name:<10} {row['compile_s']:9.1f}  {row['seconds']:7.2f}  {row['peak_gib']:8.2f}")
    device = jax.devices()[0]
    print(
        json.dumps({"config": arguments.config, "device": device.device_kind, "jax": jax.__version__, **rows})
    )


def load_config(path):
    """`get_config()` of a file."""
    spec = importlib.util.spec_from_file_location("config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def inference(model, variables, config, repeats):
    """One frame, from pixels to detections."""
    height, width = config.data.buckets[0]
    images = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    run = jax.jit(partial(model.apply, method="detect"))
    sizes = np.array([config.inference.scale[::-1]], np.int32)
    compiled, seconds = compile_time(run, variables, images, sizes)
    return measure(lambda: compiled(variables, images, sizes), seconds, repeats)


def training(model, variables, config, pairs, repeats):
    """One step on `pairs` pairs."""
    mask = schedule.trainable(variables["params"], frozen_names(config.model.backbone.frozen_stages))
    optimizer = schedule.make_optimizer(config.optimizer, 1000, mask)
    state = create_train_state(jax.random.key(1), variables, optimizer)
    step = partial(train_step, model=model, optimizer=optimizer, options=FrozenConfigDict(config.train))
    run = parallel(step, devices=jax.local_devices()[:1])
    batch = random_batch(pairs, config)
    compiled, seconds = compile_time(run, state, batch)

    def step_once():
        nonlocal state
        state, metrics = compiled(state, batch)
        return metrics

    return measure(step_once, seconds, repeats)


def random_batch(pairs, config):
    """A batch (1, pairs, …) of noise with four boxes a frame."""
    rng = np.random.default_rng(0)
    height, width = config.data.buckets[0]
    objects = config.data.max_objects
    corners = rng.uniform(0, [width * 0.6, height * 0.6], (pairs, objects, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(40, 130, corners.shape)], -1)
    batch = {"labels": rng.integers(0, NUM_CLASSES, (pairs, objects)).astype(np.int32)}
    batch["masks"] = np.full((pairs, objects, height, width // 8), 255, np.uint8)
    batch["matches"] = np.tile(np.arange(1, objects + 1, dtype=np.int32), (pairs, 1))
    for prefix in ("", "reference_"):
        batch[f"{prefix}image"] = rng.integers(0, 256, (pairs, height, width, 3), np.uint8)
        batch[f"{prefix}image_size"] = np.full((pairs, 2), config.inference.scale[::-1], np.int32)
        batch[f"{prefix}boxes"] = boxes.astype(np.float32)
        batch[f"{prefix}valid"] = np.tile(np.arange(objects) < 4, (pairs, 1))
    return {name: array[None] for name, array in batch.items()}


def compile_time(run, *arguments):
    """The compiled program and the seconds it took to get."""
    started = time.perf_counter()
    compiled = run.lower(*arguments).compile()
    return compiled, time.perf_counter() - started


def measure(call, compile_seconds, repeats):
    """The fastest of `repeats` calls after a first one, and the process's peak memory so far."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "compile_s": round(compile_seconds, 1),
        "seconds": round(min(times), 3),
        "peak_gib": round(peak, 2),
    }


if __name__ == "__main__":
    main()
