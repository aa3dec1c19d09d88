"""Kills a training run at random moments and checks that it ends like an uninterrupted run.

    python -m benchmarks.kills --output runs/kills [--kills 50] [--seed 0] [--signal KILL|TERM] [--rivals]

The reference is one uninterrupted run of `configs/tiny.py` on generated videos, with a checkpoint every third
step and metrics every second step. The same command is then started and killed at a random moment between its
first step and its end, again and again. When a run reaches its end, its parameters, optimiser state and
metrics (except times) are compared with the reference bit for bit, and a new run begins. Prints a line per
kill, and finally the number of kills, the lost steps and the number of equal runs.

With --rivals each start is two processes at once on the same folder. One of them must end with the line of
the lock. The run has two loader processes. At the end, no process and no shared memory of the runs may be
left.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
STEPS = 60
LOCKED = ": is in use by process "  # in the line of a refused process
SHARED_MEMORY = Path("/dev/shm")
TIMES = {"frames_per_second", "data_wait"}  # metrics that differ from run to run

Outcome = tuple[dict[tuple[str, str], bytes], list[dict[str, Any]]]  # arrays of the checkpoint, metrics


def make_data(folder: Path) -> Path:
    """Generate the videos, if they are missing, and return the path of their labels."""
    from masktrack_jax.data.generate.options import GeneratorOptions
    from masktrack_jax.data.generate.write import generate

    path = folder / "data" / "instances.json"
    if not path.exists():
        generate(folder / "data", GeneratorOptions(videos=4, frames=6, height=64, width=96, seed=1))
    return path


def start(data: Path, workdir: Path, workers: int = 0) -> subprocess.Popen:
    """Start the training command. Its output goes to `WORKDIR.log`."""
    values = {"train_annotations": data, "val_annotations": "", "val_split": ""}
    flags = ["--config", str(ROOT / "configs/tiny.py")]
    flags += [f"--config.data.{key}={value}" for key, value in values.items()]
    flags += [f"--config.train.{key}={value}" for key, value in {"steps": STEPS, "log_every": 2}.items()]
    flags += ["--config.train.checkpoint_every=3", f"--config.data.workers={workers}"]
    command = [sys.executable, str(ROOT / "train.py"), "--workdir", str(workdir), *flags]
    cache = {"JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "jax")}
    cache |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1", "PYTHONPATH": str(ROOT)}
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **cache}
    log = open(f"{workdir}.log", "a")  # noqa: SIM115 – the process uses it
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def start_rivals(data: Path, workdir: Path) -> tuple[subprocess.Popen, subprocess.Popen]:
    """Start the command twice at once; returns the process that has the lock, and the refused one."""
    log = Path(f"{workdir}.log")
    before = log.read_text().count(LOCKED) if log.exists() else 0
    pair = [start(data, workdir, workers=2) for _ in range(2)]
    while all(process.poll() is None for process in pair):
        time.sleep(0.01)
    pair.sort(key=lambda process: process.poll() is not None)
    if pair[1].returncode != 1 or log.read_text().count(LOCKED) != before + 1:
        raise SystemExit(f"{log}: two processes on one folder, and none ended with the line of the lock")
    return pair[0], pair[1]


def processes_of(folder: Path) -> int:
    """The number of processes started for the runs in `folder`, by their environment."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            found += f"JAX_COMPILATION_CACHE_DIR={folder}/jax".encode() in path.read_bytes()
    return found


def read_rows(workdir: Path) -> list[dict[str, Any]]:
    """Return the complete rows of the metrics; the last line may be cut off."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def newest_step(workdir: Path) -> int:
    """Return the step of the newest checkpoint; 0 if there is none."""
    folders = (workdir / "checkpoints").glob("*")
    return max((int(path.name) for path in folders if path.name.isdigit()), default=0)


def read_outcome(workdir: Path) -> Outcome:
    """Return the bytes of every array in the last checkpoint, and the metrics without times."""
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
    metrics = [{name: row[name] for name in row.keys() - TIMES} for row in read_rows(workdir)]
    return arrays, metrics


def wait_for_start(process: subprocess.Popen, workdir: Path) -> float:
    """Wait for the first new row or checkpoint of a process, or for its end, and return the time."""
    # A resumed run removes the rows after its checkpoint and writes them again.
    old, kept = read_rows(workdir), newest_step(workdir)
    while (
        process.poll() is None
        and newest_step(workdir) <= kept
        and all(row in old for row in read_rows(workdir))
    ):
        time.sleep(0.002)
    return time.perf_counter()


def wait_for_success(process: subprocess.Popen, workdir: Path) -> None:
    """Wait for the end of a run that was not killed."""
    if process.wait():
        raise SystemExit(f"{workdir}.log: the run failed without a kill")


def kill_once(
    process: subprocess.Popen, workdir: Path, delay: float, number: signal.Signals
) -> tuple[int, str] | None:
    """Send signal `number` `delay` seconds after the first step.

    Returns the number of lost steps and a description, or None if the run had already ended.
    """
    wait_for_start(process, workdir)
    time.sleep(delay)
    if process.poll() is not None:
        return None
    process.send_signal(number)
    process.wait()
    reached = max((row["step"] for row in read_rows(workdir)), default=0)
    kept = newest_step(workdir)
    if kept == STEPS:  # the signal came after the last checkpoint
        return None
    unfinished = any("tmp" in path.name for path in (workdir / "checkpoints").glob("*"))
    words = f"after step {reached}, checkpoint {kept}" + ", another half written" * unfinished
    return max(reached - kept, 0), words


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL")
    parser.add_argument("--rivals", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Run the benchmark."""
    arguments = parse_arguments()
    folder = arguments.output.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    data, draw = make_data(folder), random.Random(arguments.seed)
    number = signal.Signals[f"SIG{arguments.signal}"]

    reference = folder / "whole"
    process = start(data, reference)
    first = wait_for_start(process, reference)
    wait_for_success(process, reference)
    seconds = time.perf_counter() - first
    print(f"uninterrupted: {seconds:.1f} s from the first row to the end", flush=True)
    wanted = read_outcome(reference)
    lost: list[int] = []
    equal, run, refused = 0, 0, 0
    while True:
        workdir = folder / f"run{run}"
        if arguments.rivals:
            process, _ = start_rivals(data, workdir)
            refused += 1
        else:
            process = start(data, workdir)
        kill = None
        if len(lost) < arguments.kills:
            kill = kill_once(process, workdir, draw.uniform(0, 0.7 * seconds), number)
        if kill is not None:
            steps, description = kill
            lost.append(steps)
            print(f"kill {len(lost)}: {description}", flush=True)
            continue
        if process.wait() not in (0, -number, 128 + number):
            raise SystemExit(f"{workdir}.log: the run failed without a kill")
        same = read_outcome(workdir) == wanted
        equal, run = equal + same, run + 1
        print(f"run {run}: {'the same end' if same else 'ANOTHER END'}", flush=True)
        if len(lost) >= arguments.kills:
            break
    print(f"{len(lost)} kills in {run} runs, {equal} with the same end; {sum(lost)} steps lost in total")
    if arguments.rivals:
        time.sleep(2)
        left = [path.name for path in SHARED_MEMORY.glob("*masktrack-*")]
        print(
            f"{refused} second processes refused; {processes_of(folder)} processes and {len(left)} files in "
            f"{SHARED_MEMORY} left"
        )


if __name__ == "__main__":
    main()
