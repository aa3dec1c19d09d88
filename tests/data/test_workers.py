"""Loader processes: their names of shared memory, and what a killed run leaves."""

import os
import signal
import subprocess
import sys
import time

import pytest

from masktrack_jax.data import workers
from tests.helpers.configs import ROOT

LOAD = """
import multiprocessing, sys, time
from absl import flags
from masktrack_jax.data import workers

class Squares:
    def __len__(self):
        return 10**6
    def __getitem__(self, place):
        import numpy as np
        return np.full(2 * workers.LARGE, place % 7, np.uint8)

if __name__ == "__main__":
    import grain
    flags.FLAGS.mark_as_parsed()
    batches = iter(workers.in_processes(grain.MapDataset.source(Squares()).to_iter_dataset(), 2))
    next(batches)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(60)
"""


def shared_memory(number):
    return [path for path in workers.SHARED_MEMORY.glob("*masktrack-*") if f"-{number}-" in path.name]


def runs(number):
    """Whether a process runs; one that has ended may wait for its parent to ask for its status."""
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not workers.SHARED_MEMORY.is_dir(), reason="Linux keeps shared memory there")
def test_a_killed_process_leaves_no_loaders_and_no_shared_memory(tmp_path):
    program = tmp_path / "load.py"
    program.write_text(LOAD)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, program], stdout=subprocess.PIPE, text=True, env=environment
    ) as run:
        children = [int(number) for number in run.stdout.readline().split()]
        assert len(children) == 2 and all(map(runs, children)) and shared_memory(run.pid)
        run.send_signal(signal.SIGKILL)
    limit = time.monotonic() + 10
    while (any(map(runs, children)) or shared_memory(run.pid)) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not any(map(runs, children)) and not shared_memory(run.pid)


def test_leftovers_are_removed_only_of_dead_processes_of_this_container(tmp_path, monkeypatch):
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    space = workers._process_space()
    names = {
        f"masktrack-{space}-{dead.pid}-aa": False,
        f"sem.masktrack-{space}-{dead.pid}-aa": False,
        f"masktrack-{space}-{os.getpid()}-aa": True,
        f"masktrack-0{space}-{dead.pid}-aa": True,
        "masktrack-model": True,
        f"psm_masktrack-{space}-{dead.pid}-aa": True,
    }
    for name in names:
        (tmp_path / name).touch()
    monkeypatch.setattr(workers, "SHARED_MEMORY", tmp_path)
    workers.remove_leftovers()
    assert {path.name for path in tmp_path.iterdir()} == {name for name, kept in names.items() if kept}
