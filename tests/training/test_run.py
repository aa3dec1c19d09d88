"""Whole training runs on a tiny generated data set: their files, going on after an end, and refusals."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from masktrack_jax.checkpoints.metadata import read_metadata
from masktrack_jax.data.splits import training_split
from masktrack_jax.models.masktrack_rcnn import build_model
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.training import run as loop
from masktrack_jax.training import start
from tests.helpers.configs import ROOT, load_config
from tests.helpers.interop import quick_initialisation


class Crash(Exception):
    pass


class CrashAfter:
    """An iterator of batches that breaks off."""

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
    return loop.train(config, training_split(config), folder)


@pytest.fixture
def config(tiny_data):
    config = load_config("tiny")
    config.data.train_annotations = config.data.val_annotations = str(tiny_data)
    return config


@pytest.fixture(scope="module")
def whole(tiny_data, tmp_path_factory):
    """Four steps without a break: the folder, the state and the categories."""
    config = load_config("tiny")
    config.data.train_annotations = str(tiny_data)
    folder = tmp_path_factory.mktemp("whole")
    state = train(config, folder)
    categories = training_split(config).labels
    return folder, plain(state), categories


def plain(state):
    return jax.device_get(state._replace(key=jax.random.key_data(state.key)))


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_its_files(whole, config):
    folder, state, categories = whole
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
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"2", "4"}
    about = read_metadata(folder)
    assert (about.step, about.categories) == (4, categories)


def test_going_on_is_bit_identical(whole, config, tmp_path, monkeypatch):
    """A crash in step 4, while the checkpoint of step 2 is long behind; then the same command again."""
    batches = loop.training_batches
    with monkeypatch.context() as patch:
        patch.setattr(loop, "training_batches", lambda *a, **k: CrashAfter(batches(*a, **k), 3))
        with pytest.raises(Crash):
            train(config, tmp_path)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"2"}
    state = train(config, tmp_path)
    folder, wanted, _ = whole
    assert jax.tree.structure(plain(state)) == jax.tree.structure(wanted)
    for ours, theirs in zip(jax.tree.leaves(plain(state)), jax.tree.leaves(wanted)):
        assert ours.tobytes() == theirs.tobytes()
    for ours, theirs in zip(rows(tmp_path), rows(folder), strict=True):
        for name in theirs.keys() - {"frames_per_second", "data_wait"}:
            assert ours[name] == theirs[name], name
    # Once more: there is nothing left to do.
    again = train(config, tmp_path)
    assert int(again.step) == 4 and len(rows(tmp_path)) == 2


def test_a_folder_of_another_run_is_refused(whole, config):
    for key, value in (("seed", 3), ("optimizer.momentum", 0.5), ("model.track_head.relu_last", False)):
        other = config.copy_and_resolve_references()
        other.update_from_flattened_dict({key: value})
        with pytest.raises(UserError, match=key.split(".")[0]):
            train(other, whole[0])
    assert len(rows(whole[0])) == 2


def test_a_batch_must_divide(config, tmp_path):
    config.train.batch_size = 6
    with pytest.raises(UserError, match=r"config\.train\.batch_size=6 .* 4 devices"):
        train(config, tmp_path)
    config.train.update({"batch_size": 8, "accumulate": 3})
    with pytest.raises(UserError, match=r"config\.train\.accumulate=3 does not divide the 2 pairs"):
        train(config, tmp_path)


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_starting_from_a_checkpoint(whole, config, capsys, monkeypatch):
    """Everything is loaded; another backbone is refused."""
    quick_initialisation(monkeypatch)
    folder, state, categories = whole
    config.train.init_from = str(folder)
    fresh = build_model(config, len(categories)).init_variables(jax.random.key(9))
    params = start.start_variables(config, fresh, categories)["params"]
    assert same(params, state.params) and not same(params, fresh["params"])
    assert capsys.readouterr().out == f"{folder}: loaded\n"
    config.model.fpn.channels = 24
    fresh = build_model(config, len(categories)).init_variables(jax.random.key(9))
    with pytest.raises(UserError, match="another architecture"):
        start.start_variables(config, fresh, categories)


def test_starting_from_a_checkpoint_of_another_form(whole, config, capsys, monkeypatch):
    """What shapes do not tell is said; another place of the strides is refused."""
    quick_initialisation(monkeypatch)
    folder, _, categories = whole
    config.train.init_from = str(folder)
    config.model.track_head.relu_last = False
    fresh = build_model(config, len(categories)).init_variables(jax.random.key(9))
    start.start_variables(config, fresh, categories)
    assert (
        "was made with config.model.track_head.relu_last=True; goes on with False" in capsys.readouterr().out
    )
    config.model.backbone.stride_in_1x1 = True
    with pytest.raises(UserError, match=r"set config\.model\.backbone\.stride_in_1x1=False"):
        start.start_variables(config, fresh, categories)


def test_starting_from_a_checkpoint_of_other_categories(whole, config, capsys, monkeypatch):
    """The rows of classes are taken by name; those of a new one stay."""
    quick_initialisation(monkeypatch)
    folder, state, categories = whole
    config.train.init_from = str(folder)
    config.model.track_head.features = 24
    others = [(50, "new"), *reversed(categories)]
    fresh = build_model(config, len(others)).init_variables(jax.random.key(9))["params"]
    params = start.start_variables(config, {"params": fresh}, others)["params"]
    old = jax.device_get(state.params)
    for name in ("backbone", "fpn", "rpn_head"):
        assert same(params[name], old[name])
    assert same(params["track_head"], fresh["track_head"])  # of another size
    for module, leaf in (("logits", "kernel"), ("logits", "bias"), ("deltas", "kernel"), ("deltas", "bias")):
        got, was, new = (tree["box_head"][module][leaf] for tree in (params, old, fresh))
        if module == "logits":
            wanted = [new[..., :1], was[..., -2::-1], was[..., -1:]]  # the background stays the last
        else:
            by_class = was.reshape(*was.shape[:-1], len(categories), 4)
            wanted = [new[..., :4], by_class[..., ::-1, :].reshape(was.shape)]
        np.testing.assert_array_equal(got, np.concatenate(wanted, axis=-1))
    for name in ("logits_kernel", "logits_bias"):
        got, was, new = (tree["mask_head"][name] for tree in (params, old, fresh))
        np.testing.assert_array_equal(got, np.concatenate([new[..., :1], was[..., ::-1]], axis=-1))
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and "params/track_head/fc1/kernel" in line
    assert line.endswith("; new categories: new\n")


def test_length_of_a_run(config):
    from masktrack_jax.data.options import PairOptions
    from masktrack_jax.data.pipeline import steps_per_epoch
    from masktrack_jax.data.vis import read_vis

    dataset = read_vis(config.data.train_annotations, None)
    options = PairOptions.from_config(config.data)
    assert loop.total_steps(config, dataset) == 4
    config.train.update({"steps": 0, "epochs": 2.5})
    epoch = steps_per_epoch(dataset, options, batch_size=4)
    assert epoch > 1 and loop.total_steps(config, dataset) == int(2.5 * epoch)


READ = """
import jax, numpy as np, sys
from masktrack_jax.checkpoints import store
from masktrack_jax.checkpoints.metadata import read_metadata
from masktrack_jax.models.masktrack_rcnn import build_model
about = read_metadata(sys.argv[1])
variables = store.load_variables(sys.argv[1], build_model(about.config, len(about.categories)))
total = sum(float(np.abs(np.float64(x)).sum()) for x in jax.tree.leaves(variables["params"]))
print(jax.device_count(), total)
"""


def test_a_checkpoint_of_four_devices_is_read_with_one(whole):
    folder, state, _ = whole
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", READ, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    devices, total = done.stdout.split()[-2:]
    assert devices == "1"
    assert float(total) == sum(float(np.abs(np.float64(x)).sum()) for x in jax.tree.leaves(state.params))
