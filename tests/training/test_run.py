"""Whole training runs on tiny data: their files, resuming after a crash to the last bit, and refusals."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from masktrack_jax.checkpoints.metadata import read_metadata
from masktrack_jax.data.options import PairOptions
from masktrack_jax.data.pipeline import steps_per_epoch
from masktrack_jax.data.splits import training_split
from masktrack_jax.data.vis import read_vis
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.lock import folder_lock
from masktrack_jax.training import loading
from masktrack_jax.training import run as training_run
from tests.helpers.configs import ROOT
from tests.helpers.training import READ, TIMES, Crash, plain, rows, saved_steps


class CrashAfter:
    """An iterator of batches that raises a `Crash` after some."""

    def __init__(self, batches, count):
        self.batches, self.left = batches, count

    def __next__(self):
        if self.left == 0:
            raise Crash
        self.left -= 1
        return next(self.batches)

    def close(self):
        self.batches.close()


def train(config, folder):
    return training_run.train(config, training_split(config), folder)


def test_a_run_leaves_its_files(finished, config):
    folder, state, categories = finished
    assert int(state.step) == 4 and categories == [(i + 1, name) for i, (_, name) in enumerate(categories)]
    first, second = rows(folder)
    assert (first["step"], second["step"]) == (2, 4)
    for row in (first, second):
        assert all(np.isfinite(value) for value in row.values())
        assert {
            "loss",
            "loss_match",
            "match_accuracy",
            "gradient_norm",
            "learning_rate",
            "data_wait",
        } <= row.keys()
        assert row["frames_per_second"] > 0
    rates = [row["learning_rate"] / config.optimizer.learning_rate for row in (first, second)]
    assert rates == pytest.approx([2 / 3, 0.01])  # warming up; decayed twice
    assert list((folder / "tensorboard").iterdir())
    assert saved_steps(folder) == {"2", "4"}
    about = read_metadata(folder)
    assert (about.step, about.categories) == (4, categories)


def test_resuming_is_bit_identical(finished, config, tmp_path, monkeypatch):
    """A crash in step 4, after the checkpoint of step 2; then the same command again."""
    batches = loading.training_batches
    with monkeypatch.context() as patch:
        patch.setattr(loading, "training_batches", lambda *a, **k: CrashAfter(batches(*a, **k), 3))
        with pytest.raises(Crash):
            train(config, tmp_path)
    assert saved_steps(tmp_path) == {"2"}
    state = train(config, tmp_path)
    folder, wanted, _ = finished
    assert jax.tree.structure(plain(state)) == jax.tree.structure(wanted)
    for ours, theirs in zip(jax.tree.leaves(plain(state)), jax.tree.leaves(wanted)):
        assert ours.tobytes() == theirs.tobytes()
    for ours, theirs in zip(rows(tmp_path), rows(folder), strict=True):
        for name in theirs.keys() - TIMES:
            assert ours[name] == theirs[name], name
    # A third time: there is nothing left to do.
    again = train(config, tmp_path)
    assert int(again.step) == 4 and len(rows(tmp_path)) == 2


def test_a_folder_of_another_run_is_refused(finished, config):
    for key, value in (("seed", 3), ("optimizer.momentum", 0.5), ("model.track_head.relu_last", False)):
        other = config.copy_and_resolve_references()
        other.update_from_flattened_dict({key: value})
        with pytest.raises(UserError, match=key.split(".")[0]):
            train(other, finished[0])
    assert len(rows(finished[0])) == 2


def test_a_folder_in_use_is_refused_and_a_finished_run_is_not_lengthened(finished, config):
    with (
        folder_lock(finished[0], ""),
        pytest.raises(UserError, match=rf"is in use by process {os.getpid()} "),
    ):
        train(config, finished[0])
    config.train.steps = 8
    with pytest.raises(UserError, match=rf"steps=4, not 8; .*train\.init_from={finished[0]} and another"):
        train(config, finished[0])


def test_devices_must_share_a_batch_equally(config, tmp_path):
    config.train.batch_size = 6
    with pytest.raises(UserError, match=r"config\.train\.batch_size=6 .* 4 devices"):
        train(config, tmp_path)
    config.train.update({"batch_size": 8, "accumulate": 3})
    with pytest.raises(UserError, match=r"config\.train\.accumulate=3 does not divide the 2 pairs"):
        train(config, tmp_path)


def test_the_start_line_has_devices_and_their_shares(config):
    config.train.batch_size = 16
    config.model.dtype = "bfloat16"
    line = training_run.start_line(config)
    assert line == "4 devices (cpu), 1 process, 16 pairs = 4 a device, bfloat16"


def test_length_of_a_run(config):
    dataset = read_vis(config.data.train_annotations, None)
    options = PairOptions.from_config(config.data)
    assert training_run.total_steps(config, dataset) == 4
    config.train.update({"steps": 0, "epochs": 2.5})
    epoch = steps_per_epoch(dataset, options, batch_size=4)
    assert epoch > 1 and training_run.total_steps(config, dataset) == int(2.5 * epoch)


def test_a_checkpoint_of_four_devices_is_read_with_one(finished):
    folder, state, _ = finished
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", READ, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    devices, total = done.stdout.split()[-2:]
    assert devices == "1"
    assert float(total) == sum(float(np.abs(np.float64(x)).sum()) for x in jax.tree.leaves(state.params))
