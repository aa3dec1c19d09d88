"""Kill a training run at random moments and see that it ends as if nothing had been.

    python benchmarks/kills.py --output runs/kills [--kills 50] [--seed 0] [--signal KILL|TERM]

A run of `configs/tiny.py` on generated videos, with a checkpoint at every third step and metrics at every
second, is made once without a break. Then the same command is started and killed at a random moment between
its first step and its end, again and again; each time a run reaches its end its parameters, optimiser state
and metrics (but for times) are compared with those of the first, bit for bit, and a new one begins. Prints a
line a kill, and at the end how many there were, the steps that were lost, and how many runs were equal.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
STEPS = 60
TIMES = {"frames_per_second", "data_wait"}


def make_data(folder):
    from masktrack_jax.data.generate.options import GeneratorOptions
    from masktrack_jax.data.generate.write import generate

    path = folder / "data" / "instances.json"
    if not path.exists():
        generate(folder / "data", GeneratorOptions(videos=4, frames=6, height=64, width=96, seed=1))
    return path


def start(data, workdir):
    """The training command, with its output in `WORKDIR.log`."""
    values = {"train_annotations": data, "val_annotations": "", "val_split": ""}
    flags = ["--config", str(ROOT / "configs/tiny.py")]
    flags += [f"--config.data.{key}={value}" for key, value in values.items()]
    flags += [f"--config.train.{key}={value}" for key, value in {"steps": STEPS, "log_every": 2}.items()]
    flags += ["--config.train.checkpoint_every=3"]
    command = [sys.executable, str(ROOT / "train.py"), "--workdir", str(workdir), *flags]
    cache = {"JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "jax")}
    cache |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1", "PYTHONPATH": str(ROOT)}
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **cache}
    log = open(f"{workdir}.log", "a")  # noqa: SIM115 – the process has it
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def rows(workdir):
    """The rows of the metrics so far; the last one may be half written."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def saved(workdir):
    """The step of the newest checkpoint, 0 where there is none."""
    folders = (workdir / "checkpoints").glob("*")
    return max((int(path.name) for path in folders if path.name.isdigit()), default=0)


def outcome(workdir):
    """All that a run leaves: bytes of every array of its last checkpoint, and metrics without times."""
    import jax
    import orbax.checkpoint as ocp

    folder = (workdir / "checkpoints" / str(STEPS)).resolve()
    arrays = {}
    for item in ("variables", "progress"):
        with ocp.StandardCheckpointer() as reader:
            tree = reader.restore(folder / item)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            value = jax.random.key_data(leaf) if is_key else leaf
            arrays[item, jax.tree_util.keystr(path)] = np.asarray(value).tobytes()
    metrics = [{name: row[name] for name in row.keys() - TIMES} for row in rows(workdir)]
    return arrays, metrics


def begun(process, workdir):
    """Wait for the first new row or checkpoint of this start, or for its end; the moment."""
    old, kept = rows(workdir), saved(workdir)  # rows beyond the checkpoint are dropped, and written anew
    while process.poll() is None and saved(workdir) <= kept and all(row in old for row in rows(workdir)):
        time.sleep(0.002)
    return time.perf_counter()


def ended_well(process, workdir):
    """Wait for the end of a run that nobody killed."""
    if process.wait():
        raise SystemExit(f"{workdir}.log: the run broke off by itself")


def kill_once(process, workdir, delay, number):
    """Send `number` so many seconds after the first step; what was lost, in steps, and in words.

    None where the run was at its end before.
    """
    begun(process, workdir)
    time.sleep(delay)
    if process.poll() is not None:
        return None
    process.send_signal(number)
    process.wait()
    reached, kept = max([row["step"] for row in rows(workdir)], default=0), saved(workdir)
    if kept == STEPS:  # the signal came after the last checkpoint
        return None
    unfinished = any("tmp" in path.name for path in (workdir / "checkpoints").glob("*"))
    words = f"after step {reached}, checkpoint {kept}" + ", another half written" * unfinished
    return max(reached - kept, 0), words


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL")
    return parser.parse_args()


def main():
    options = parse()
    folder = options.output.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    data, draw = make_data(folder), random.Random(options.seed)
    number = getattr(signal, f"SIG{options.signal}")

    whole = folder / "whole"
    process = start(data, whole)
    first = begun(process, whole)
    ended_well(process, whole)
    seconds = time.perf_counter() - first
    print(f"without a break: {seconds:.1f} s from the first row to the end", flush=True)
    wanted, lost, equal, run = outcome(whole), [], 0, 0
    while True:
        workdir = folder / f"run{run}"
        process = start(data, workdir)
        seen = None
        if len(lost) < options.kills:
            seen = kill_once(process, workdir, draw.uniform(0, 0.7 * seconds), number)
        if seen is not None:
            lost.append(seen[0])
            print(f"kill {len(lost)}: {seen[1]}", flush=True)
            continue
        if process.wait() not in (0, -number, 128 + number):
            raise SystemExit(f"{workdir}.log: the run broke off by itself")
        same = outcome(workdir) == wanted
        equal, run = equal + same, run + 1
        print(f"run {run}: {'the same end' if same else 'ANOTHER END'}", flush=True)
        if len(lost) >= options.kills:
            break
    print(f"{len(lost)} kills in {run} runs, {equal} with the same end; {sum(lost)} steps lost in all")


if __name__ == "__main__":
    main()
