"""Runs that go wrong: damaged checkpoints, signals, numbers that are not finite, odd data, a full disk."""

import shutil
import signal
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

from masktrack_jax.checkpoints import store
from masktrack_jax.checkpoints.metadata import read_metadata
from masktrack_jax.data.splits import training_split
from masktrack_jax.models.masktrack_rcnn import MaskTrackRCNN, build_model
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.training import nonfinite as guard
from masktrack_jax.training import run as loop
from tests.helpers.configs import ROOT, load_config
from tests.training.test_run import plain, rows, same


def tiny(data, **train):
    config = load_config("tiny")
    config.data.train_annotations = config.data.val_annotations = str(data)
    config.data.float_resize = True  # so that a pixel can be NaN
    config.train.update({"steps": 6, "log_every": 3, "checkpoint_every": 2, "keep_last": 10, **train})
    return config


class Run:
    """Runs of one compiled step and one initialisation: `loop.train` would compile them anew each time."""

    def __init__(self, data, like=None):
        self.data, self.steps, self.variables = data, (like.steps if like else {}), []

    def __call__(self, folder, change=lambda step, batch: batch, on_error="stop", evaluate=None, **train):
        """Train in `folder`; `change(step, batch)` gives the batch of the step, `evaluate` its scores."""
        config = tiny(self.data, **train)
        config.data.on_error = on_error
        with pytest.MonkeyPatch.context() as patch:
            parallel, batches = loop.parallel, loop.training_batches
            kind = config.train.on_nan
            patch.setattr(loop, "parallel", lambda f: self.steps.setdefault(kind, parallel(f)))
            patch.setattr(MaskTrackRCNN, "init_variables", self._initial(MaskTrackRCNN.init_variables))
            patch.setattr(loop, "training_batches", lambda *a, **k: Changed(batches(*a, **k), change, k))
            return plain(loop.train(config, training_split(config), folder, evaluate))

    def _initial(self, initialise):
        def variables(model, key):
            if not self.variables:
                self.variables.append(jax.device_get(initialise(model, key)))
            return jax.tree.map(jax.numpy.array, self.variables[0])

        return variables


class Changed:
    """An iterator of batches that are changed on their way."""

    def __init__(self, batches, change, arguments):
        self.batches, self.change, self.step = batches, change, arguments["start_step"]

    def __next__(self):
        self.step += 1
        return self.change(self.step, next(self.batches))

    def close(self):
        self.batches.close()


@pytest.fixture(scope="module")
def run(tiny_data):
    return Run(tiny_data)


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """Six steps without a fault: the folder and the state."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder)


def steps(folder):
    return {path.name for path in (folder / "checkpoints").iterdir()}


def assert_same_end(folder, state, whole):
    """The state and the metrics, but for times, are those of a run without a fault, to the last bit."""
    for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(whole[1]), strict=True):
        assert ours.tobytes() == theirs.tobytes()
    for ours, theirs in zip(rows(folder), rows(whole[0]), strict=True):
        for name in theirs.keys() - {"frames_per_second", "data_wait"}:
            assert ours[name] == theirs[name], name


def signalled(step, number, times=1):
    def change(at, batch):
        if at == step:
            for _ in range(times):
                signal.raise_signal(number)
        return batch

    return change


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_first(run, whole, tmp_path, capsys, number, status):
    """In step 5: neither the checkpoints of every 2 steps nor the rows of every 3 end there."""
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, signalled(5, number))
    assert stopped.value.code == status and steps(tmp_path) == {"2", "4", "5"}
    assert f"{number.name}: step 5 is saved" in capsys.readouterr().out
    assert signal.getsignal(number) is before
    assert_same_end(tmp_path, run(tmp_path), whole)


def test_a_second_signal_ends_at_once(run, tmp_path):
    with pytest.raises(SystemExit):
        run(tmp_path, signalled(3, signal.SIGTERM, times=2))
    assert steps(tmp_path) == {"2"}


def test_a_signal_that_ends_the_loader_too(run, whole, tmp_path):
    """The step is made all the same: its batch is loaded by another loader."""
    broken = []

    def change(step, batch):
        if step == 3 and not broken:
            broken.append(step)
            signal.raise_signal(signal.SIGTERM)
            raise BrokenPipeError
        return batch

    with pytest.raises(SystemExit):
        run(tmp_path, change)
    assert steps(tmp_path) == {"2", "3"}
    assert_same_end(tmp_path, run(tmp_path), whole)


def test_training_in_a_thread_handles_no_signals(run, whole, tmp_path):
    ended = []
    thread = threading.Thread(target=lambda: ended.append(run(tmp_path)))
    thread.start()
    thread.join()
    assert_same_end(tmp_path, ended[0], whole)


def largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "parameters cut off": lambda folder: truncate(largest(folder / "variables")),
    "parameters all zeros": lambda folder: largest(folder / "variables").write_bytes(bytes(10_000)),
    "optimiser missing": lambda folder: largest(folder / "progress").unlink(),
    "description cut off": lambda folder: truncate(folder / "about" / "metadata"),
    "description missing": lambda folder: (folder / "about" / "metadata").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(run, whole, tmp_path, damage, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path, signalled(4, signal.SIGTERM))
    DAMAGES[damage](tmp_path / "checkpoints" / "4")
    capsys.readouterr()
    state = run(tmp_path)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "damaged-4" in line)
    assert line.startswith(f"{tmp_path / 'checkpoints' / '4'}") and len(line) < 700
    assert steps(tmp_path) == {"2", "damaged-4", "4", "6"}
    assert_same_end(tmp_path, state, whole)


def test_nothing_is_touched_where_no_checkpoint_is_whole(run, tmp_path):
    with pytest.raises(SystemExit):
        run(tmp_path, signalled(4, signal.SIGTERM))
    for step in "24":
        truncate(largest(tmp_path / "checkpoints" / step / "variables"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"checkpoints/4: is damaged") as caught:
        run(tmp_path)
    assert "\n" not in str(caught.value) and sorted(tmp_path.rglob("*")) == before


def test_so_many_checkpoints_are_kept(run, tmp_path):
    run(tmp_path, keep_last=1)
    assert steps(tmp_path) == {"6"}


def test_a_row_that_was_cut_off_is_written_anew(run, whole, tmp_path):
    with pytest.raises(SystemExit):
        run(tmp_path, signalled(4, signal.SIGTERM))
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "los')
    assert_same_end(tmp_path, run(tmp_path), whole)


def poisoned(*bad):
    """NaN in a pixel of the first pair of some steps."""

    def change(step, batch):
        if step in bad:
            batch = batch | {"image": np.array(batch["image"])}
            batch["image"][0, 0, 0, 0] = np.nan
        return batch

    return change


@pytest.mark.parametrize("bad", [3, 4, 6])
def test_a_loss_that_is_not_finite_stops(run, whole, tmp_path, bad):
    """Its pairs are named, and the state before it is saved: with the frames put right all is as ever."""
    seen = {}

    def change(step, batch):
        seen[step] = batch
        return poisoned(bad)(step, batch)

    with pytest.raises(UserError, match=rf"step {bad}: loss_\w+ is nan, .*train\.on_nan=skip") as caught:
        run(tmp_path, change)
    names = [video.name for video in training_split(tiny(run.data)).videos]
    columns = (seen[bad][name].tolist() for name in ("video_index", "key_frame", "reference_frame"))
    for video, key, reference in zip(*columns):
        assert f"{names[video]} {key} and {reference}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert read_metadata(tmp_path).step == bad - 1
    assert_same_end(tmp_path, run(tmp_path), whole)


def test_such_steps_can_be_skipped(run, whole, tmp_path, caplog):
    state = run(tmp_path, poisoned(2, 4, 5, 6), on_nan="skip")
    assert int(state.step) == 6 and all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))
    first, second = rows(tmp_path)
    assert (first["skipped_steps"], second["skipped_steps"]) == (1, 3)
    assert np.isfinite(first["loss"]) and second["loss"] is None
    said = [r.getMessage() for r in caplog.records if r.name == guard.__name__]
    assert [line.split(":")[1] for line in said] == [f" step {step}" for step in (2, 4, 5, 6)]
    # Step 1 is as ever, and a bad step is as if it had not been.
    with pytest.raises(UserError):
        run(tmp_path / "stopped", poisoned(2))
    skipped = run(tmp_path / "skipped", poisoned(2), on_nan="skip", steps=2)
    stopped = store.load_variables(tmp_path / "stopped", build_model(tiny(run.data), 6))
    assert same(stopped["params"], skipped.params)


def test_a_run_of_bad_steps_alone_ends(run, tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "IN_A_ROW", 3)
    with pytest.raises(UserError, match=r"step 4: .*so were the 2 steps before"):
        run(tmp_path, poisoned(*range(2, 9)), on_nan="skip", steps=8)


def test_a_bad_frame_stops_or_is_counted(run, tiny_data, tmp_path, caplog):
    """`data.on_error`; the same command goes on with another value of it."""
    shutil.copytree(tiny_data.parent, tmp_path / "data")
    other = Run(tmp_path / "data" / tiny_data.name, like=run)
    for frame in sorted((tmp_path / "data" / "JPEGImages").glob("*/00002.jpg")):
        frame.write_bytes(frame.read_bytes()[:300])
    with pytest.raises(UserError, match=r"00002\.jpg: cannot be read as an image"):
        other(tmp_path / "run")
    assert int(other(tmp_path / "run", on_error="skip").step) == 6
    assert sum(row["skipped_pairs"] for row in rows(tmp_path / "run")) > 3
    assert any("00002.jpg" in record.getMessage() for record in caplog.records)


FULL = """
import resource, sys
from tests import conftest
from tests.training.test_nonfinite import Run
from masktrack_jax.training import run as loop
run = Run(sys.argv[1])
save = loop.store.Checkpoints.save
def smaller(store, state, *rest):
    if int(state.step) == 4:
        store.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    save(store, state, *rest)
loop.store.Checkpoints.save = smaller
from masktrack_jax.runtime import cli
cli.run(run, __import__("pathlib").Path(sys.argv[2]))
"""


def test_a_full_disk_is_one_line_and_leaves_what_was_there(run, whole, tmp_path):
    """No file may grow beyond 20 kB from the second checkpoint on; Orbax's threads print it, too."""
    command = [sys.executable, "-c", FULL, str(run.data), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 1, done.stderr[-3000:]
    folder = tmp_path / "run" / "checkpoints"
    line = f"error: {folder}: a checkpoint cannot be written (File too large); make room"
    assert done.stderr.count(line) == 1, done.stderr[-3000:]
    assert read_metadata(tmp_path / "run").step == 2
    assert_same_end(tmp_path / "run", run(tmp_path / "run"), whole)
