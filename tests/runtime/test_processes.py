"""Two processes with a device each, on one machine, do what one process with two devices does."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from masktrack_jax.checkpoints import store
from masktrack_jax.checkpoints.metadata import read_metadata, read_scores
from masktrack_jax.models.masktrack_rcnn import build_model
from masktrack_jax.runtime import processes as distributed
from masktrack_jax.runtime.errors import UserError
from tests.helpers.configs import ROOT
from tests.helpers.distributed_worker import evaluate
from tests.helpers.training import READ, TIMES, Run, places, rows, saved_steps


def free_port():
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]


@contextlib.contextmanager
def devices(count):
    """A block in which there are so many devices."""
    some = jax.devices()[:count]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("devices", "local_devices"):
            patch.setattr(jax, name, lambda *_, **__: some)
        patch.setattr(jax, "device_count", lambda: count)
        yield


@pytest.fixture(scope="module")
def alone(tiny_data, tmp_path_factory):
    """One process with two devices: its folder, state, and the pairs of every step."""
    pairs, folder = [], tmp_path_factory.mktemp("alone")

    def noted(step, batch):
        pairs.append((step, *places(batch)))
        return batch

    with devices(2):
        return folder, Run(tiny_data)(folder, noted), pairs


@pytest.fixture(scope="module")
def two(tiny_data, alone, tmp_path_factory):
    """Two processes: their folder, and of each the exit status, standard output and standard error."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(alone[0], folder / "other")  # a run of one process, to go on with
    shutil.rmtree(folder / "other" / "checkpoints" / "6")
    command = [sys.executable, "-m", "tests.helpers.distributed_worker", str(tiny_data), str(folder)]
    shared = {"MASKTRACK_COORDINATOR": f"localhost:{free_port()}", "MASKTRACK_PROCESSES": "2"}
    started = [
        subprocess.Popen(
            command,
            env={**os.environ, **shared, "MASKTRACK_PROCESS": str(process), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    try:
        said = [process.communicate(timeout=600) for process in started]
    finally:
        for process in started:
            process.kill()
    return folder, [(process.returncode, *texts) for process, texts in zip(started, said)]


def line(two, process, beginning):
    """The only line of a process's standard error that begins so, without that."""
    text = two[1][process][2]
    found = [line for line in text.splitlines() if line.startswith(beginning)]
    assert len(found) == 1, text[-5000:]
    return found[0].removeprefix(beginning)


def leaves(path):
    with np.load(path) as arrays:
        return [arrays[name] for name in arrays.files]


def assert_same(state, wanted):
    assert all(a.tobytes() == b.tobytes() for a, b in zip(state, wanted, strict=True))


def test_the_losses_are_those_of_one_process(two, alone):
    """To the last bit, and so is the state in both: of two numbers the sum has no order."""
    folder, _ = two
    for ours, theirs in zip(rows(folder / "whole"), rows(alone[0]), strict=True):
        assert {k: x for k, x in ours.items() if k not in TIMES} == {
            k: x for k, x in theirs.items() if k not in TIMES
        }
    for process in range(2):
        assert_same(leaves(folder / f"state{process}.npz"), jax.tree.leaves(alone[1]))


def test_each_process_loads_its_rows_only(two, alone):
    parts = [json.loads(line(two, p, f"{p} pairs ").translate(str.maketrans("()", "[]"))) for p in range(2)]
    assert len(parts[0]) == len(alone[2]) == 6
    for first, second, whole in zip(*parts, alone[2]):
        assert first[0] == second[0] == whole[0] and len(first) == len(second) == 3
        assert [*first[1:], *second[1:]] == [list(pair) for pair in whole[1:]]


def test_only_one_process_prints_and_writes(two):
    folder, ((_, first, _), (_, second, _)) = two
    assert "step 3/6" in first and "tracks: " in first
    assert [line for line in second.splitlines() if not line.startswith("[Gloo]")] == []
    assert len(list((folder / "whole" / "tensorboard").iterdir())) == 1


def test_a_signal_to_one_process_ends_both_at_the_same_step(two, tiny_data, tmp_path):
    """And one process with four devices goes on from there."""
    folder, ((_, stdout, _), _) = two
    assert [line(two, p, f"{p} signal: ") for p in range(2)] == ["SystemExit 143"] * 2
    assert "SIGTERM: step 5 is saved" in stdout and saved_steps(folder / "signal") == {"2", "4", "5"}
    assert [row["skipped_pairs"] for row in rows(folder / "signal")] == [
        6
    ]  # 2 of process 1 in each of 3 steps
    shutil.copytree(folder / "signal", tmp_path / "signal")
    state = Run(tiny_data)(tmp_path / "signal")
    for ours, theirs in zip(jax.tree.leaves(state), leaves(folder / "state0.npz"), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_two_processes_go_on_from_one(two, alone):
    assert_same(leaves(two[0] / "resumed0.npz"), jax.tree.leaves(alone[1]))
    assert saved_steps(two[0] / "other") == {"2", "4", "6"}


def test_a_checkpoint_of_two_processes_is_read_on_one_device(two, alone):
    folder = two[0] / "whole"
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", READ, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    devices, total = done.stdout.split()[-2:]
    state = jax.tree.unflatten(jax.tree.structure(alone[1]), leaves(two[0] / "state0.npz"))
    assert devices == "1"
    assert float(total) == sum(float(np.abs(np.float64(x)).sum()) for x in jax.tree.leaves(state.params))


def test_a_bad_step_stops_both(two):
    said = [line(two, process, f"{process} bad: BadStep ") for process in range(2)]
    assert all(text.startswith("step 5: loss_") for text in said) and said[0] != said[1]
    assert read_metadata(two[0] / "bad").step == 4


def test_a_split_is_shared_out_and_merged(two, tiny_data, tmp_path):
    """Over processes, or over devices; the files are those of one device, to the byte."""
    for count in (1, 3):
        with devices(count):
            metrics = evaluate(tiny_data, two[0] / "whole", tmp_path / str(count) / "metrics.json")
    for name in ("results.json", "metrics.json"):
        wanted = (tmp_path / "1" / name).read_bytes()
        assert (two[0] / "scores" / name).read_bytes() == wanted
        assert (tmp_path / "3" / name).read_bytes() == wanted
    results = json.loads((tmp_path / "1" / "results.json").read_text())
    assert len({track["video_id"] for track in results}) > 2
    assert [line(two, process, f"{process} AP ") for process in range(2)] == [str(metrics["AP"])] * 2


def test_scores_on_the_way_are_written_once(two):
    folder = two[0] / "scored"
    table = [json.loads(row) for row in (folder / "validation.jsonl").open()]
    assert table == [{"step": 3, "AP": 0.2}, {"step": 6, "AP": 0.1}]
    assert read_metadata(folder / "best").step == 3
    assert read_scores(folder / "best") == {"AP": 0.2}
    about = read_metadata(folder / "best")
    store.load_variables(folder / "best", build_model(about.config, len(about.categories)))


def test_an_error_of_one_process_ends_both(two):
    """Process 0 waits in a reduction meanwhile."""
    assert [status for status, _, _ in two[1]] == [1, 1]
    assert line(two, 1, "error: ") == "frame.jpg: broken"
    assert line(two, 0, "error: ") == "process 1 of 2 failed: frame.jpg: broken"


@pytest.mark.parametrize(
    "values, words",
    [
        ({"MASKTRACK_PROCESSES": "2", "MASKTRACK_PROCESS": "0"}, "MASKTRACK_COORDINATOR=HOST:PORT"),
        ({"MASKTRACK_COORDINATOR": "here:1", "MASKTRACK_PROCESS": "0"}, "MASKTRACK_PROCESSES"),
        (
            {"MASKTRACK_COORDINATOR": "here", "MASKTRACK_PROCESSES": "2", "MASKTRACK_PROCESS": "0"},
            "HOST:PORT",
        ),
        ({"MASKTRACK_COORDINATOR": "here:1", "MASKTRACK_PROCESSES": "2", "MASKTRACK_PROCESS": "x"}, "'x'"),
        ({"MASKTRACK_COORDINATOR": "here:1", "MASKTRACK_PROCESSES": "2", "MASKTRACK_PROCESS": "2"}, "0 to 1"),
    ],
)
def test_an_environment_that_makes_no_sense(values, words):
    with pytest.raises(UserError, match=words) as caught, distributed.process_group(values):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("process, rows", [(0, (0, 4)), (1, (4, 10)), (2, (10, 12))])
def test_rows_are_in_the_order_of_the_processes(monkeypatch, process, rows):
    """However JAX numbers the devices: 2, 3 and 1 of them for 12 rows."""
    found = [SimpleNamespace(id=i, process_index=p) for i, p in enumerate((1, 0, 1, 2, 0, 1))]
    monkeypatch.setattr(jax, "devices", lambda: found)
    monkeypatch.setattr(jax, "device_count", lambda: len(found))
    monkeypatch.setattr(jax, "process_index", lambda: process)
    assert distributed.local_rows(12) == slice(*rows)
    assert [device.id for device in distributed.all_devices()] == [1, 4, 0, 2, 5, 3]


@pytest.mark.parametrize(
    "count, processes, platform, kind, words",
    [
        (8, 1, "gpu", "NVIDIA H100", "8 devices (gpu NVIDIA H100), 1 process"),
        (1, 2, "cpu", "cpu", "1 device (cpu), 2 processes"),
    ],
)
def test_devices_in_words(monkeypatch, count, processes, platform, kind, words):
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    found = [
        SimpleNamespace(id=i, process_index=0, platform=platform, device_kind=kind) for i in range(count)
    ]
    monkeypatch.setattr(jax, "devices", lambda: found)
    assert distributed.devices_text() == words


def test_alone_nothing_is_shared():
    with distributed.process_group({}):
        assert distributed.is_first() and distributed.local_rows(8) == slice(0, 8)
        assert distributed.gather(3) == [3] and distributed.broadcast("x") == "x"


KILLED = """
import os, signal, sys
import jax, numpy as np
from masktrack_jax.runtime import cli
from masktrack_jax.runtime.processes import all_devices, broadcast, gather, process_group
def main():
    with process_group():
        assert broadcast(gather(jax.process_index())) == [0, 1]
        if jax.process_index() == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        total = jax.pmap(lambda x: jax.lax.psum(x, "all"), "all", devices=all_devices())
        gather(jax.block_until_ready(total(np.ones((jax.local_device_count(), 1)))))
cli.run(main)
"""


def test_a_killed_process_ends_the_other_within_seconds():
    """Process 0 waits in a reduction. JAX alone notices it after 100 seconds."""
    command = [sys.executable, "-c", KILLED, "1"]
    shared = {"MASKTRACK_COORDINATOR": f"localhost:{free_port()}", "MASKTRACK_PROCESSES": "2"}
    shared["XLA_FLAGS"] = "--xla_force_host_platform_device_count=1"
    environments = [os.environ | shared | {"MASKTRACK_PROCESS": str(process)} for process in range(2)]
    pipes = {"stderr": subprocess.PIPE, "cwd": ROOT, "text": True}
    first, second = (subprocess.Popen(command, env=environment, **pipes) for environment in environments)
    try:
        assert second.wait(120) == -signal.SIGKILL
        said = first.communicate(timeout=30)[1]
    finally:
        first.kill()
    assert first.returncode == 1
    assert said.splitlines()[-1] == "error: process 1 is lost: it was killed, or its machine does not answer"
