"""The training loop, from reading batches to saving checkpoints."""

import contextlib
from pathlib import Path

import jax
from ml_collections import ConfigDict

from masktrack_jax.checkpoints.steps import Checkpoints
from masktrack_jax.data.options import PairOptions
from masktrack_jax.data.pipeline import steps_per_epoch
from masktrack_jax.data.vis import VisDataset
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import make_folder
from masktrack_jax.runtime.lock import folder_lock
from masktrack_jax.runtime.processes import devices_text, is_first
from masktrack_jax.runtime.programs import Announced
from masktrack_jax.runtime.signals import Interruption, exit_status
from masktrack_jax.training import schedule
from masktrack_jax.training.loading import Batches, NoBatch
from masktrack_jax.training.metrics import MetricsLog, SilentLog
from masktrack_jax.training.nonfinite import BadStep, Watch
from masktrack_jax.training.profiling import Profile
from masktrack_jax.training.start import start_run
from masktrack_jax.training.step import StepBatch, TrainState, parallel, step_batch
from masktrack_jax.training.validation import Evaluate, Validation


def train(
    config: ConfigDict,
    dataset: VisDataset,
    workdir: str | Path,
    evaluate: Evaluate | None = None,
    profile: int = 0,
) -> TrainState:
    """Train on `dataset`, resuming from the newest checkpoint in `workdir` if there is one.

    Writes `checkpoints/`, `metrics.jsonl` and `tensorboard/` to `workdir`, and returns the final state. At
    SIGTERM or SIGINT it saves the state and raises SystemExit. `evaluate` scores variables during the run,
    see `Validation`. `profile` steps are traced, see `Profile`. All processes of a run (see
    runtime/processes.py) call this function.
    """
    total = total_steps(config, dataset)
    check_divides(config.train.batch_size, jax.device_count(), config.train.accumulate)
    print(start_line(config))
    folder = make_folder(workdir)
    with (
        folder_lock(folder, "use another --workdir") if is_first() else contextlib.nullcontext(),
        Checkpoints(folder / "checkpoints", keep=config.train.keep_last) as checkpoints,
        Interruption(shared=jax.process_count() > 1) as interruption,
    ):
        device_step, state, pending = start_run(config, dataset.labels, total, folder, checkpoints)
        first = done = int(state.step)
        validation = Validation(folder, evaluate, config, dataset.labels, first, total)
        if validation.due(first):
            validation.score(state)
        if first >= total:
            end_if_asked(interruption, checkpoints, state)
            return state
        with (
            contextlib.closing(Batches(config, dataset, first, interruption)) as batches,
            contextlib.closing(open_log(config, folder, first, total, pending)) as log,
            contextlib.closing(Profile(folder / "profile", profile)) as profiled,
        ):
            run, devices = Announced(parallel(device_step), describe), jax.local_devices()
            watch = Watch(dataset.videos, config.train.on_nan, interruption)

            def save(state: TrainState) -> None:
                checkpoints.save(state, config, dataset.labels, log.pending(int(state.step)))

            def unsaved() -> str:
                saved = max(checkpoints.saved(), first)
                return f"the steps after {saved} are being saved" if saved < done else ""

            interruption.unsaved = unsaved
            try:
                for step in range(first + 1, total + 1):
                    with profiled.step(step):
                        with log.waiting():
                            batch = next(batches, None)
                        if batch is None:  # a signal arrived before it
                            break
                        state, metrics = run(state, step_batch(batch, step - 1, interruption.noted))
                        if devices[0].platform == "cpu":
                            # Otherwise, simulated CPU devices can deadlock in a reduction.
                            jax.block_until_ready(metrics)
                        done = step
                        watch.add(step, batch.provenance, metrics)
                    profiled.finish(metrics)
                    if step % config.train.log_every == 0 or step == total:
                        watch.finish()
                    log.add(step, metrics)
                    if interruption.signal is None and validation.due(step):
                        watch.finish()
                        save(state)  # before scoring, so that an interruption loses nothing
                        if interruption.signal is None:  # otherwise the evaluation runs after resuming
                            with log.paused():
                                validation.score(state)
                    if interruption.signal is not None:
                        break
                    if step % config.train.checkpoint_every == 0 or step == total:
                        save(state)
                watch.finish()
            except (BadStep, NoBatch):
                save(state)  # the step that raises has not changed it
                raise
            if interruption.signal is not None and done:
                save(state)
        end_if_asked(interruption, checkpoints, state)
    return state


def start_line(config: ConfigDict) -> str:
    """The devices of a run and their shares of a batch, as a line to the user."""
    size = config.train.batch_size
    return f"{devices_text()}, {size} pairs = {size // jax.device_count()} a device, {config.model.dtype}"


def describe(_: TrainState, batch: StepBatch) -> str:
    """The name of a program in a line to the user."""
    *_, height, width, _channels = batch.pairs.key.image.shape
    return f"the training step for {height}×{width}"


def open_log(
    config: ConfigDict, workdir: Path, start: int, total: int, pending: list[dict[str, float]]
) -> MetricsLog | SilentLog:
    """Open the log of metrics at step `start`; only the first process writes."""
    if not is_first():
        return SilentLog()
    return MetricsLog(
        workdir,
        every=config.train.log_every,
        start=start,
        total=total,
        frames=2 * config.train.batch_size,
        rate=schedule.learning_rate(config.optimizer, total),
        pending=pending,
    )


def end_if_asked(interruption: Interruption, checkpoints: Checkpoints, state: TrainState) -> None:
    """If a signal ended the run, wait for the checkpoint and raise SystemExit."""
    # A signal received in the last steps is too late for an agreement, but the other processes end anyway.
    if (signal := interruption.signal or interruption.noted) is not None:
        checkpoints.wait()
        step = int(state.step)
        kept = f"step {step} is saved; the same command resumes from there" if step else "no step is done yet"
        print(f"{signal.name}: {kept}")
        raise SystemExit(exit_status(signal))


def total_steps(config: ConfigDict, dataset: VisDataset) -> int:
    """The number of steps of the run: `train.steps`, or `train.epochs` passes over the labelled frames."""
    if config.train.steps > 0:
        return config.train.steps
    options = PairOptions.from_config(config.data)
    return int(config.train.epochs * steps_per_epoch(dataset, options, batch_size=config.train.batch_size))


def check_divides(batch_size: int, devices: int, parts: int = 1) -> None:
    """Check that the batch can be divided equally among devices, and each share into equal `parts`."""
    if batch_size % devices:
        raise UserError(
            f"config.train.batch_size={batch_size} is not a multiple of the {devices} devices; change it"
        )
    if batch_size // devices % parts:
        raise UserError(
            f"config.train.accumulate={parts} does not divide the {batch_size // devices} pairs of a device "
            f"(config.train.batch_size={batch_size}, {devices} devices); use a divisor"
        )
