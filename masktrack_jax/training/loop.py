"""The training run, top to bottom."""

import time
from functools import partial

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from masktrack_jax import checkpoints
from masktrack_jax.data.pairs import PROVENANCE, PairOptions
from masktrack_jax.data.pipeline import steps_per_epoch, training_batches
from masktrack_jax.errors import UserError
from masktrack_jax.files import make_folder
from masktrack_jax.forms import form_differences
from masktrack_jax.interruption import Interruption
from masktrack_jax.models.masktrack_rcnn import build_model
from masktrack_jax.models.resnet import frozen_names
from masktrack_jax.training import schedule
from masktrack_jax.training.guard import BadStep, Watch, guarded
from masktrack_jax.training.metrics import MetricsLog
from masktrack_jax.training.step import create_train_state, parallel, train_step
from masktrack_jax.training.validation import Validation


def train(config, dataset, workdir, evaluate=None):
    """Train on `dataset` as `config` says, from the newest checkpoint in `workdir` if there is one.

    Leaves `checkpoints/`, `metrics.jsonl` and `tensorboard/` there; returns the final state. At SIGTERM or
    SIGINT the state is saved and SystemExit raised. `evaluate(variables)` scores a state on the way, see
    validation.py.
    """
    categories = dataset.labels
    options = PairOptions.from_config(config.data)
    total = total_steps(config, dataset, options)
    devices = jax.local_devices()
    check_divides(config.train.batch_size, len(devices), config.train.accumulate)
    workdir = make_folder(workdir)

    model = build_model(config, len(categories))
    init_key, run_key = jax.random.split(jax.random.key(config.seed))
    variables = model.init_variables(init_key)
    frozen = frozen_names(config.model.backbone.frozen_stages)
    mask = schedule.trainable(variables["params"], frozen, config.train.only)
    optimizer = schedule.make_optimizer(config.optimizer, total, mask)
    step_options = FrozenConfigDict(config.train)
    step_function = partial(train_step, model=model, optimizer=optimizer, options=step_options)
    run = parallel(guarded(step_function, config.train.on_nan))

    with (
        checkpoints.Checkpoints(workdir / "checkpoints", keep=config.train.keep_last) as store,
        Interruption() as interruption,
    ):
        if store.latest() is None:
            variables = start_variables(config, variables, categories)
        state, pending = create_train_state(run_key, variables, optimizer), []
        if store.latest() is not None:
            state, pending = store.restore_newest(
                state, lambda about: check_same_run(workdir, about, config, categories)
            )
        start = int(state.step)
        validation = Validation(workdir, evaluate, config, categories, start, total)
        if validation.due(start):
            validation.make(state)
        if start >= total:
            return state
        batches = training_batches(
            dataset,
            options,
            seed=config.seed,
            batch_size=config.train.batch_size,
            start_step=start,
            workers=config.data.workers,
            on_error=config.data.on_error,
        )
        log = MetricsLog(
            workdir,
            every=config.train.log_every,
            start=start,
            total=total,
            frames=2 * config.train.batch_size,
            rate=schedule.learning_rate(config.optimizer, total),
            pending=pending,
        )
        watch = Watch(dataset.videos, config.train.on_nan)

        def save(state):
            store.save(state, config, categories, log.pending(int(state.step)))

        try:
            state = take_steps(
                state, run, batches, log, watch, interruption, save, validation, config.train, total
            )
        finally:
            log.close()
            batches.close()
        if interruption.signal is not None:
            store.wait()
            print(
                f"{interruption.signal.name}: step {state.step} is saved; the same command goes on from there"
            )
            raise SystemExit(interruption.status)
    return state


def take_steps(state, run, batches, log, watch, interruption, save, validation, options, total):
    """The state after the steps up to `total`, or up to a signal; `options` is the `train` section.

    It is saved and scored as `options` say, and saved where the run breaks off for a signal or a bad step.
    """
    devices = jax.local_devices()
    try:
        for step in range(int(state.step) + 1, total + 1):
            waiting = time.perf_counter()
            if (batch := next_batch(batches, interruption)) is None:
                break
            log.waited(time.perf_counter() - waiting)
            state, metrics = run(state, split_batch(batch, len(devices), step - 1))
            if devices[0].platform == "cpu":
                jax.block_until_ready(metrics)  # else forced host devices can deadlock in a reduction
            watch.add(step, batch, metrics)
            if step % options.log_every == 0 or step == total:
                watch.finish()
            log.add(step, metrics | {"skipped_pairs": batch["skipped"].sum()})
            if interruption.signal is not None:
                break
            if step % options.checkpoint_every == 0 or step == total:
                save(state)
            if validation.due(step):
                watch.finish()
                save(state)  # first: nothing is lost if scoring is broken off
                waiting = time.perf_counter()
                validation.make(state)
                log.paused(time.perf_counter() - waiting)
        watch.finish()
    except BadStep:
        save(state)
        raise
    if interruption.signal is not None:
        save(state)
    return state


def total_steps(config, dataset, options):
    """Steps of the whole run: `train.steps`, or `train.epochs` passes over the labelled frames."""
    if config.train.steps > 0:
        return config.train.steps
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


# What may differ between the parts of a run: it changes nothing that is learnt, or only says where data lie.
FREE = (
    "inference.",
    "model.remat",
    "train.accumulate",
    "train.checkpoint_every",
    "train.evaluate_every",
    "train.keep_best",
    "train.log_every",
    "train.init_from",
    "train.on_nan",
    "train.keep_last",
    "data.on_error",
    "data.workers",
    "data.cache_mb",
    "data.root",
    "data.name",
    "data.val_split",
    "data.train_annotations",
    "data.train_frames",
    "data.val_annotations",
    "data.val_frames",
)


def check_same_run(workdir, about, config, categories):
    """A folder goes on with the run that it holds, `about`, not with another one."""
    if about.categories != categories:
        raise UserError(
            f"{workdir}: holds a run on other categories than "
            f"{config.data.train_annotations or config.data.root}; use another --workdir"
        )
    there, here = dict(_leaves(about.config)), dict(_leaves(config))
    for key in sorted(there.keys() | here.keys()):
        if there.get(key) != here.get(key) and not key.startswith(FREE):
            raise UserError(
                f"{workdir}: holds a run with config.{key}={there.get(key)}, not {here.get(key)}; "
                "use another --workdir"
            )


def _leaves(config, path=""):
    """(dotted key, value) of every entry; lists as tuples, since a checkpoint's JSON knows lists only."""
    if hasattr(config, "items"):
        for key, value in config.items():
            yield from _leaves(value, f"{path}.{key}" if path else key)
    else:
        yield path, _plain(config)


def _plain(value):
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


# What depends on the classes, or is no part of a detector: may stay at its initialisation.
REPLACEABLE = (
    "params/box_head/logits",
    "params/box_head/deltas",
    "params/mask_head/logits",
    "params/track_head",
)
# What else may, where the features are of another neck: all that reads them.
AFTER_BACKBONE = ("params/fpn", "params/rpn_head", "params/box_head", "params/mask_head")


def start_variables(config, variables, categories):
    """`variables`, with those of the checkpoint `train.init_from` in their place where they fit.

    Of the layers with rows for each class, those of the `categories` (id, name) that the checkpoint has too
    are taken by name. Only these layers and the track head may be missing there or be of another shape;
    between a network with and one without a pyramid all but the backbone.
    """
    if path := config.train.init_from:
        replaceable = REPLACEABLE
        if checkpoints.read_about(path).config.model.neck != config.model.neck:
            replaceable += AFTER_BACKBONE
        variables, left, matches = checkpoints.load_matching(path, variables, categories, replaceable)
        loaded = f"loaded, but for {', '.join(left)}" if left else "loaded"
        new = [name for (_, name), place in zip(categories, matches) if place is None]
        print(f"{path}: {loaded}{'; new categories: ' * bool(new)}{', '.join(new)}")
        check_form(path, config)
    return variables


def check_form(path, config):
    """What shapes do not tell: say which values the weights at `path` were trained with instead of ours.

    They adapt to other boxes and RoIs, but not to another place of the strides: that is a UserError.
    """
    for key, ours, theirs in form_differences(config, checkpoints.read_about(path).config):
        if key == "backbone.stride_in_1x1":
            raise UserError(
                f"{path}: its backbone is of another kind; set config.model.{key}={theirs} (it is {ours})"
            )
        print(f"{path}: was made with config.model.{key}={theirs}; goes on with {ours}")


def next_batch(batches, interruption):
    """The next batch, or None where a signal to end ended the loader's processes, too."""
    try:
        return next(batches)
    except Exception:
        if interruption.signal is None:
            raise
        return None


def split_batch(batch, devices, step):
    """The arrays of the step after `step` others as (devices, B / devices, …), and `step` (devices,)."""
    arrays = {
        name: np.reshape(array, (devices, -1, *array.shape[1:]))
        for name, array in batch.items()
        if name not in PROVENANCE
    }
    return arrays | {"step": np.full(devices, step, np.int32)}
