"""The training run, top to bottom."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from masktrack_jax.checkpoints import store
from masktrack_jax.data.options import PairOptions
from masktrack_jax.data.pairs import PROVENANCE
from masktrack_jax.data.pipeline import steps_per_epoch, training_batches
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import make_folder
from masktrack_jax.runtime.processes import is_first, local_rows
from masktrack_jax.runtime.signals import Interruption, exit_status
from masktrack_jax.training import schedule
from masktrack_jax.training.metrics import MetricsLog, Quiet
from masktrack_jax.training.nonfinite import BadStep, Watch
from masktrack_jax.training.start import begin
from masktrack_jax.training.step import parallel
from masktrack_jax.training.validation import Validation


def train(config, dataset, workdir, evaluate=None):
    """Train on `dataset` as `config` says, from the newest checkpoint in `workdir` if there is one.

    Leaves `checkpoints/`, `metrics.jsonl` and `tensorboard/` there; returns the final state. At SIGTERM or
    SIGINT the state is saved and SystemExit raised. `evaluate(variables)` scores a state on the way, see
    validation.py. Of several processes (distributed.py) all call this.
    """
    total = total_steps(config, dataset)
    check_divides(config.train.batch_size, jax.device_count(), config.train.accumulate)
    workdir = make_folder(workdir)
    with (
        store.Checkpoints(workdir / "checkpoints", keep=config.train.keep_last) as checkpoints,
        Interruption(shared=jax.process_count() > 1) as interruption,
    ):
        step, state, pending = begin(config, dataset.labels, total, workdir, checkpoints)
        start = int(state.step)
        validation = Validation(workdir, evaluate, config, dataset.labels, start, total)
        if validation.due(start):
            validation.make(state)
        if start >= total:
            end_if_asked(interruption, checkpoints, state)
            return state
        with (
            contextlib.closing(Batches(config, dataset, start, interruption)) as batches,
            contextlib.closing(open_log(config, workdir, start, total, pending)) as log,
        ):
            watch = Watch(dataset.videos, config.train.on_nan, interruption)

            def save(state):
                checkpoints.save(state, config, dataset.labels, log.pending(int(state.step)))

            run = parallel(step)
            steps = Steps(run, batches, log, watch, validation, interruption, save, config.train, total)
            state = steps.take(state)
        end_if_asked(interruption, checkpoints, state)
    return state


@dataclass(frozen=True)
class Steps:
    """What the steps of a run go through."""

    run: Callable  # `run(state, batch)` over all devices
    batches: Any  # iterator of this process's rows
    log: Any
    watch: Watch
    validation: Validation
    interruption: Interruption
    save: Callable  # `save(state)`
    options: Any  # the `train` section of the config
    total: int

    def take(self, state):
        """The state after the steps up to `total`, or up to a signal.

        It is saved and scored as the options say, and saved where the run breaks off for a signal or a bad
        step.
        """
        try:
            for step in range(int(state.step) + 1, self.total + 1):
                batch = self._next()
                state, metrics = self._make(state, batch, step)
                self._see(step, batch, metrics)
                if self.interruption.signal is None and self.validation.due(step):
                    self._score(state)
                if self.interruption.signal is not None:
                    break
                if step % self.options.checkpoint_every == 0 or step == self.total:
                    self.save(state)
            self.watch.finish()
        except BadStep:
            self.save(state)
            raise
        if self.interruption.signal is not None:
            self.save(state)
        return state

    def _next(self):
        waiting = time.perf_counter()
        batch = next(self.batches)
        self.log.waited(time.perf_counter() - waiting)
        return batch

    def _make(self, state, batch, step):
        """The state after the step that makes `step` steps in all, and its metrics."""
        devices = jax.local_devices()
        state, metrics = self.run(state, split_batch(batch, len(devices), step - 1, self.interruption.noted))
        if devices[0].platform == "cpu":
            jax.block_until_ready(metrics)  # else forced host devices can deadlock in a reduction
        return state, metrics

    def _see(self, step, batch, metrics):
        """Watch and log a step. Raises a BadStep, which may be of the step before."""
        self.watch.add(step, batch, metrics)
        if step % self.options.log_every == 0 or step == self.total:
            self.watch.finish()
        self.log.add(step, metrics)

    def _score(self, state):
        self.watch.finish()
        self.save(state)  # first: nothing is lost if scoring is broken off
        if self.interruption.signal is not None:  # agreed upon only now; scoring is made up for
            return
        waiting = time.perf_counter()
        self.validation.make(state)
        self.log.paused(time.perf_counter() - waiting)


class Batches:
    """The batches of a run from step `start` on: the rows of them that this process takes.

    A signal to end may end the processes of the loader, too, while this one has a few more steps to make:
    since batch k is the same whoever loads it, these are loaded here.
    """

    def __init__(self, config, dataset, start, interruption):
        self._config, self._dataset, self._interruption = config, dataset, interruption
        self._step, self._broken = start, False
        self._batches = self._load(config.data.workers)

    def _load(self, workers):
        config = self._config
        return training_batches(
            self._dataset,
            PairOptions.from_config(config.data),
            seed=config.seed,
            batch_size=config.train.batch_size,
            rows=local_rows(config.train.batch_size),
            start_step=self._step,
            workers=workers,
            on_error=config.data.on_error,
        )

    def __next__(self):
        try:
            batch = next(self._batches)
        except Exception:
            if self._broken or self._interruption.noted is None:
                raise
            self._broken, self._batches = True, self._load(workers=0)
            batch = next(self._batches)
        self._step += 1
        return batch

    def close(self):
        self._batches.close()


def open_log(config, workdir, start, total, pending):
    """What writes the metrics from step `start` on; of several processes the first writes."""
    if not is_first():
        return Quiet()
    return MetricsLog(
        workdir,
        every=config.train.log_every,
        start=start,
        total=total,
        frames=2 * config.train.batch_size,
        rate=schedule.learning_rate(config.optimizer, total),
        pending=pending,
    )


def end_if_asked(interruption, checkpoints, state):
    """Raise SystemExit, when all is written, where a signal ended the run."""
    # One that was noted in the last steps came too late to be agreed upon: the others will be told.
    if (asked := interruption.signal or interruption.noted) is not None:
        checkpoints.wait()
        print(f"{asked.name}: step {state.step} is saved; the same command goes on from there")
        raise SystemExit(exit_status(asked))


def total_steps(config, dataset):
    """Steps of the whole run: `train.steps`, or `train.epochs` passes over the labelled frames."""
    if config.train.steps > 0:
        return config.train.steps
    options = PairOptions.from_config(config.data)
    return int(config.train.epochs * steps_per_epoch(dataset, options, batch_size=config.train.batch_size))


def check_divides(batch_size, devices, parts=1):
    """The batch is cut into equal shares of the devices, and these into equal `parts`."""
    if batch_size % devices:
        raise UserError(
            f"config.train.batch_size={batch_size} is not a multiple of the {devices} devices; make it one"
        )
    if batch_size // devices % parts:
        raise UserError(
            f"config.train.accumulate={parts} does not divide the {batch_size // devices} pairs of a device "
            f"(config.train.batch_size={batch_size}, {devices} devices); let it divide them"
        )


def split_batch(batch, devices, step, signal=None):
    """The arrays of the step after `step` others as (devices, B / devices, …).

    `step` and the number of the `signal` that was noted, or 0, go with them, (devices,).
    """
    arrays = {
        name: np.reshape(array, (devices, -1, *array.shape[1:]))
        for name, array in batch.items()
        if name not in PROVENANCE or name == "skipped"
    }
    counts = {"step": step, "signal": signal or 0}
    return arrays | {name: np.full(devices, count, np.int32) for name, count in counts.items()}
