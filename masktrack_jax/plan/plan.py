"""Compile the programs of a config for a target, and estimate them."""

import contextlib
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from masktrack_jax.data.splits import training_split
from masktrack_jax.plan import programs, targets
from masktrack_jax.plan.estimate import Estimate, estimate
from masktrack_jax.plan.hlo import parse
from masktrack_jax.plan.programs import Work
from masktrack_jax.plan.report import Plan
from masktrack_jax.plan.targets import Target
from masktrack_jax.runtime.errors import UserError, one_line
from masktrack_jax.training.run import total_steps

CLASSES = 40  # of YouTube-VIS


class Wanted(NamedTuple):
    """What to plan: names of programs, and numbers that replace those of the config and its data set."""

    programs: Sequence[str]
    batch: int | None = None
    frames: int | None = None
    classes: int | None = None
    hlo: str | None = None


def plans(config: ConfigDict, target: Target, wanted: Wanted) -> Iterator[Plan]:
    """The plan of each program, as it is ready."""
    steps, source, classes = recipe(config, wanted)
    devices = targets.devices(target)
    bucket, _ = programs.frame_sizes(config)
    for name in wanted.programs:
        if name == "detect":
            batch = wanted.batch or config.inference.frames_per_call
            work = programs.detect(config, classes, target.platform, devices, batch)
            yield plan_work(work, bucket, config.model.dtype, target, 1, (0, ""), wanted)
        else:
            batch = wanted.batch or config.train.batch_size
            work = programs.train(config, classes, target.platform, devices, batch, max(steps, 1))
            of_run = steps, source
            yield plan_work(work, bucket, config.model.dtype, target, len(devices), of_run, wanted)


def recipe(config: ConfigDict, wanted: Wanted) -> tuple[int, str, int]:
    """Steps of the whole run, where the number comes from, and the number of classes."""
    batch = wanted.batch or config.train.batch_size
    classes = wanted.classes or CLASSES
    if config.train.steps > 0:
        return config.train.steps, "config.train.steps", classes
    if wanted.frames:
        steps = int(config.train.epochs * max(wanted.frames // batch, 1))
        return steps, f"{config.train.epochs:g} epochs of {wanted.frames:,} frames", classes
    try:
        dataset = training_split(config)
    except UserError as error:
        return 0, f"hours of the whole recipe: give --frames ({one_line(error)})", classes
    with config.unlocked():
        config.train.batch_size = batch
    steps = total_steps(config, dataset)
    return steps, f"{config.train.epochs:g} epochs of the data set", wanted.classes or len(dataset.labels)


def plan_work(
    work: Work,
    bucket: tuple[int, int],
    dtype: str,
    target: Target,
    devices: int,
    steps: tuple[int, str],
    wanted: Wanted,
) -> Plan:
    """Compile a program for the target, count its loops here, and estimate it."""
    with waiting(f"compiling {work.name} for {target.title}"):
        start = time.perf_counter()
        lowered = work.lower()
        memory, text = compile_for(lowered, target)
        seconds = time.perf_counter() - start
    if wanted.hlo:
        name = f"{work.name}_{target.title.replace(':', '_')}.hlo"
        Path(wanted.hlo, name).write_text(text)
    with waiting(f"counting the loops of {work.name} on this machine"):
        sites = work.counted()
    found: Estimate | None = estimate(parse(text), sites, target, devices) if text else None
    flops = sum(amount for site, amount in sites.items() if site.kind == "flops")
    return Plan(work.name, target, work.batch, bucket, dtype, seconds, memory, flops, found, steps)


def compile_for(lowered: Any, target: Target) -> tuple[dict[str, float], str]:
    """Bytes of a program by use, and its text; no text if it does not fit into the target's memory."""
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if needed := _needed(str(error)):
            return {"at least": needed}, ""
        raise UserError(f"--target={target.title}: the compiler fails: {one_line(error, 500)}") from None
    found = compiled.memory_analysis()
    memory = {
        "parameters and inputs": found.argument_size_in_bytes,
        "results": found.output_size_in_bytes - found.alias_size_in_bytes,
        "temporary": found.temp_size_in_bytes,
        "program": found.generated_code_size_in_bytes,
    }
    return memory, compiled.as_text()


def _needed(message: str) -> float:
    """The bytes that a program needs at least, by a compiler's message that memory is exhausted; else 0."""
    size = r"([\d.]+)([KMGT])i?B?"
    found = re.search(rf"\({size}\) exceeds available|Used {size} of", message)
    if "RESOURCE_EXHAUSTED" not in message or not found:
        return 0.0
    number, unit = [text for text in found.groups() if text]
    return float(number) * 1024.0 ** ("KMGT".index(unit) + 1)


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say what takes long, and then how long it took."""
    print(f"{what} …", end="", file=sys.stderr, flush=True)
    start = time.perf_counter()
    try:
        yield
    finally:
        print(f" {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
