"""Training runs on tiny data with changed batches, signals and crashes."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from masktrack_jax.data.batches import PairBatch
from masktrack_jax.data.splits import training_split
from masktrack_jax.models.masktrack_rcnn import MaskTrackRCNN
from masktrack_jax.training import run as training_run
from masktrack_jax.training.step import TrainState
from tests.helpers.configs import load_config

Change = Callable[[int, PairBatch], PairBatch]
TIMES = {"frames_per_second", "data_wait"}  # of a row of metrics: they differ from run to run


def tiny(data: Path | str, **train: Any) -> ConfigDict:
    """configs/tiny.py for six steps on `data`, with changes of its `train` section."""
    config = load_config("tiny")
    config.data.train_annotations = config.data.val_annotations = str(data)
    config.data.float_resize = True  # so that a pixel can be NaN
    config.train.update({"steps": 6, "log_every": 3, "checkpoint_every": 2, "keep_last": 10, **train})
    return config


def unchanged(step: int, batch: PairBatch) -> PairBatch:
    return batch


class Run:
    """Runs that share compiled steps and initial variables; `train` would compile each time."""

    # By the kind of step, the number of devices, and that of categories.
    steps: ClassVar[dict[tuple, Callable]] = {}
    variables: ClassVar[dict[tuple, Any]] = {}

    def __init__(self, data: Path | str) -> None:
        self.data = data

    def __call__(
        self,
        folder: Path,
        change: Change = unchanged,
        on_error: str = "stop",
        evaluate: Callable | None = None,
        **train: Any,
    ) -> TrainState:
        """Train in `folder`; `change(step, batch)` gives the batch of the step, `evaluate` its scores."""
        config = tiny(self.data, **train)
        config.data.on_error = on_error
        with pytest.MonkeyPatch.context() as patch:
            parallel, batches = training_run.parallel, training_run.Batches
            dataset = training_split(config)
            kind = (config.train.on_nan, jax.device_count(), len(dataset.labels))
            patch.setattr(training_run, "parallel", lambda f: self.steps.setdefault(kind, parallel(f)))
            patch.setattr(MaskTrackRCNN, "init_variables", self._initial(MaskTrackRCNN.init_variables, kind))
            patch.setattr(training_run, "Batches", lambda *a: ChangedBatches(batches(*a), change, a[2]))
            return plain(training_run.train(config, dataset, folder, evaluate))

    def _initial(self, initialise: Callable, kind: tuple) -> Callable:
        def variables(model, key):
            if kind not in self.variables:
                self.variables[kind] = jax.device_get(initialise(model, key))
            return jax.tree.map(jax.numpy.array, self.variables[kind])

        return variables


class ChangedBatches:
    """The batches of a run, each replaced by `change` when its step is due."""

    def __init__(self, batches: Any, change: Change, start: int) -> None:
        self.batches, self.change, self.step = batches, change, start

    def __next__(self) -> PairBatch:
        self.step += 1
        return self.change(self.step, next(self.batches))

    def close(self) -> None:
        self.batches.close()


class Crash(Exception):
    pass


def crash_in(step: int) -> Change:
    def change(at, batch):
        if at == step:
            raise Crash
        return batch

    return change


def signalled(step: int, number: int, times: int = 1) -> Change:
    """A signal to this process in one step."""

    def change(at, batch):
        if at == step:
            for _ in range(times):
                signal.raise_signal(number)
        return batch

    return change


def poisoned(*bad: int) -> Change:
    """NaN in a pixel of the first pair of some steps."""

    def change(step, batch):
        if step in bad:
            image = np.array(batch.key.image)
            image[0, 0, 0, 0] = np.nan  # of the first device
            image = jax.device_put(image, batch.key.image.sharding)
            batch = batch._replace(key=batch.key._replace(image=image))
        return batch

    return change


def places(batch: PairBatch) -> list[tuple[int, int, int]]:
    """Video index, key frame and reference frame of each pair."""
    return list(zip(*(column.tolist() for column in batch.provenance[:3])))


def plain(state: TrainState) -> TrainState:
    """A state of NumPy arrays."""
    return jax.device_get(state._replace(key=jax.random.key_data(state.key)))


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of `metrics.jsonl`."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def saved_steps(folder: Path) -> set[str]:
    """The names of the checkpoints of a run."""
    return {path.name for path in (folder / "checkpoints").iterdir()}


def same(a: Any, b: Any) -> bool:
    """Whether two trees have equal arrays."""
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def assert_same_end(folder: Path, state: TrainState, whole: tuple[Path, TrainState]) -> None:
    """The state and the metrics, except times, equal those of the run `whole` to the last bit."""
    for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(whole[1]), strict=True):
        assert ours.tobytes() == theirs.tobytes()
    for ours, theirs in zip(rows(folder), rows(whole[0]), strict=True):
        for name in theirs.keys() - TIMES:
            assert ours[name] == theirs[name], name


# A program: reads the checkpoint of a run, prints the number of devices and the sum of all parameters.
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
