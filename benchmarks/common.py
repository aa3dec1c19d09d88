"""What the benchmarks share: clocks, the machine's own speed, counted work, random networks."""

import contextlib
import importlib.util
import json
import os
import resource
import time
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from masktrack_jax.models import forms
from masktrack_jax.models.masktrack_rcnn import build_model

NUM_CLASSES = 40


def load_config(path):
    """`get_config()` of a file."""
    spec = importlib.util.spec_from_file_location("config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def random_network(config):
    """A model and its random variables."""
    model = build_model(config, NUM_CLASSES)
    return model, model.init_variables(jax.random.key(0))


def compiled(function, *arguments):
    """`function` compiled for the arguments, and the seconds that took."""
    started = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    return program, time.perf_counter() - started


def plain_work(function, *arguments):
    """Floating-point operations of `function`, with every convolution as the plain sum; loops count once."""
    chosen, forms.conv3x3 = forms.conv3x3, _plain
    try:
        return jax.jit(lambda *a: function(*a)).lower(*arguments).cost_analysis()["flops"]
    finally:
        forms.conv3x3 = chosen


def _plain(x, kernel, exact):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=numbers)


def clock(calls, repeats, peer=None):
    """{name: {"seconds": wall, "cpu_seconds": of all threads}} of {name: call}, the least of `repeats`.

    The calls take turns, also with those of a `peer.Peer`, so that what else the machine does meets them all.
    On a busy machine the processor time says more than the wall's.
    """
    for call in calls.values():
        jax.block_until_ready(call())
    rounds = [_times(calls) | (peer.round() if peer else {}) for _ in range(repeats)]
    least = {name: map(min, zip(*(times[name] for times in rounds))) for name in rounds[0]}
    return {name: dict(zip(("seconds", "cpu_seconds"), times)) for name, times in least.items()}


def _times(calls):
    """{name: (seconds, processor seconds)} of each call once."""
    times = {}
    for name, call in calls.items():
        started = time.perf_counter(), time.process_time()
        jax.block_until_ready(call())
        now = time.perf_counter(), time.process_time()
        times[name] = tuple(n - s for n, s in zip(now, started))
    return times


def product_rate(repeats=5):
    """The best rate of a matrix product over a few shapes, operations a second and a second of processor."""
    shapes = ((4096, 4096, 4096), (15360, 2304, 256), (15360, 256, 256), (3840, 1152, 512))
    product = jax.jit(jnp.matmul)
    calls = {(m, k, n): partial(product, jnp.ones((m, k)), jnp.ones((k, n))) for m, k, n in shapes}
    times = clock(calls, repeats)
    rates = [[2 * m * k * n / t for t in times[m, k, n].values()] for m, k, n in shapes]
    return dict(zip(("a_second", "a_cpu_second"), map(max, zip(*rates))))


def report(title, rows, work, machine, **more):
    """Print a table of stages and, last, everything as a JSON line.

    `rows`: of `clock`; `work`: {name: operations} of some of them; `machine`: of `product_rate`.
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
    print("in brackets: of the rate a second of processor time")
    print(json.dumps(rounded({"what": title, **about, **more, "stages": rows})))


def load_average():
    """What else the machine does, as `uptime` says; 0 where that is not known."""
    with contextlib.suppress(OSError, AttributeError):
        return os.getloadavg()[0]
    return 0.0


def rounded(tree):
    """Numbers to four digits."""
    return jax.tree.map(lambda x: float(f"{x:.4g}") if isinstance(x, float) else x, tree)
