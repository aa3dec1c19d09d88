"""Helpers shared by the benchmarks: timing, the machine's product rate, counted work, random networks."""

import contextlib
import importlib.util
import json
import os
import resource
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from ml_collections import ConfigDict

from masktrack_jax.models import forms
from masktrack_jax.models.masktrack_rcnn import MaskTrackRCNN, build_model

if TYPE_CHECKING:
    from benchmarks.peer import Peer

NUM_CLASSES = 40

Variables = Mapping[str, Any]  # {"params", "batch_stats"} of a network
Name = TypeVar("Name")  # of a timed stage
Times = dict[str, float]  # {"seconds": wall time, "cpu_seconds": processor time of all threads}


def load_config(path: str | Path) -> ConfigDict:
    """Return `get_config()` of a config file."""
    spec = importlib.util.spec_from_file_location("config", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def random_network(config: ConfigDict) -> tuple[MaskTrackRCNN, Variables]:
    """Return a model and random variables."""
    model = build_model(config, NUM_CLASSES)
    return model, model.init_variables(jax.random.key(0))


def compiled(function: Callable[..., Any], *arguments: object) -> tuple[Callable[..., Any], float]:
    """Return `function` compiled for the arguments, and the seconds spent compiling."""
    started = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    return program, time.perf_counter() - started


def plain_work(function: Callable[..., Any], *arguments: object) -> float:
    """Count the floating-point operations of `function`.

    Every convolution counts as the plain sum. The body of a loop counts once.
    """
    chosen, forms.conv3x3 = forms.conv3x3, _plain
    try:
        return jax.jit(lambda *a: function(*a)).lower(*arguments).cost_analysis()["flops"]
    finally:
        forms.conv3x3 = chosen


def _plain(x: jax.Array, kernel: jax.Array, exact: bool) -> jax.Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=numbers)


def clock(
    calls: Mapping[Name, Callable[[], object]], repeats: int, peer: "Peer | None" = None
) -> dict[Name, Times]:
    """Time each call, and return the minimum of `repeats` rounds.

    The calls take turns, also with those of `peer`, so other load on the machine affects all of them. On a
    busy machine processor time is more reliable than wall time.
    """
    for call in calls.values():
        jax.block_until_ready(call())
    rounds = [_time_once(calls) | (peer.round() if peer else {}) for _ in range(repeats)]
    least = {name: map(min, zip(*(times[name] for times in rounds))) for name in rounds[0]}
    return {name: dict(zip(("seconds", "cpu_seconds"), times)) for name, times in least.items()}


def _time_once(calls: Mapping[Name, Callable[[], object]]) -> dict[Name, tuple[float, float]]:
    """Return (wall seconds, processor seconds) of one run of each call."""
    times = {}
    for name, call in calls.items():
        started = time.perf_counter(), time.process_time()
        jax.block_until_ready(call())
        times[name] = (time.perf_counter() - started[0], time.process_time() - started[1])
    return times


def product_rate(repeats: int = 5) -> Times:
    """Return the best rate of a matrix product over a few shapes, in operations per second.

    "a_second" is per second of wall time, "a_cpu_second" per second of processor time.
    """
    shapes = ((4096, 4096, 4096), (15360, 2304, 256), (15360, 256, 256), (3840, 1152, 512))
    product = jax.jit(jnp.matmul)
    calls = {(m, k, n): partial(product, jnp.ones((m, k)), jnp.ones((k, n))) for m, k, n in shapes}
    times = clock(calls, repeats)
    rates = [[2 * m * k * n / t for t in times[m, k, n].values()] for m, k, n in shapes]
    return dict(zip(("a_second", "a_cpu_second"), map(max, zip(*rates))))


def report(
    title: str, rows: dict[str, Times], work: Mapping[str, float], machine: Times, **more: object
) -> None:
    """Print a table of stages, and then everything as one JSON line.

    Args:
        title: what was timed.
        rows: times by stage, from `clock`.
        work: floating-point operations of some of the stages.
        machine: rates from `product_rate`.
        more: other values for the JSON line.
    """
    print(f"{title:<31} {'ms':>10}  processor ms     GFLOP  of the machine's product rate")
    for name, row in rows.items():
        line = f"{name:<31} {row['seconds'] * 1e3:10.1f}  {row['cpu_seconds'] * 1e3:12.1f}"
        if name in work:
            row["gflop"] = work[name] / 1e9
            row["of_product_rate"] = work[name] / row["seconds"] / machine["a_second"]
            row["of_cpu_product_rate"] = work[name] / row["cpu_seconds"] / machine["a_cpu_second"]
            line += f"  {row['gflop']:8.1f}  {row['of_product_rate']:7.0%} ({row['of_cpu_product_rate']:.0%})"
        print(line)
    about = {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "load": load_average(),
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "product_gflops": machine["a_second"] / 1e9,
        "product_gflops_a_cpu_second": machine["a_cpu_second"] / 1e9,
    }
    print("in brackets: share of the product rate per second of processor time")
    print(json.dumps(rounded({"what": title, **about, **more, "stages": rows})))


def load_average() -> float:
    """Return the load of the machine, as `uptime` prints it; 0 if it is unknown."""
    with contextlib.suppress(OSError, AttributeError):
        return os.getloadavg()[0]
    return 0.0


def rounded(tree: dict[str, Any]) -> dict[str, Any]:
    """Round the floats of a tree to four significant digits."""
    return jax.tree.map(lambda x: float(f"{x:.4g}") if isinstance(x, float) else x, tree)
