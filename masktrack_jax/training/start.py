"""Start a run from random weights or other weights, or resume it from its newest checkpoint."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict, FrozenConfigDict

from masktrack_jax.checkpoints import store
from masktrack_jax.checkpoints.categories import unmatched
from masktrack_jax.checkpoints.metadata import Metadata, read_metadata
from masktrack_jax.checkpoints.steps import Checkpoints
from masktrack_jax.config.presets import form_differences
from masktrack_jax.models.masktrack_rcnn import build_model
from masktrack_jax.models.resnet import frozen_names
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.processes import on_local_devices
from masktrack_jax.training import schedule
from masktrack_jax.training.step import TrainState, create_train_state, guarded, train_step

Categories = list[tuple[int, str]]  # (id, name) of each label


class Start(NamedTuple):
    """The step function of one device, and the state from which a run starts or resumes."""

    step: Callable
    state: TrainState
    pending: list[dict[str, float]]  # metrics of earlier steps that are not written yet


def start_run(
    config: ConfigDict,
    categories: Categories,
    total: int,
    workdir: Path,
    checkpoints: Checkpoints,
) -> Start:
    """Resume from the newest of the `checkpoints` of `workdir` if there is one, otherwise start at step 0.

    `total` is the number of steps of the whole run.
    """
    model = build_model(config, len(categories))
    init_key, run_key = jax.random.split(jax.random.key(config.seed))
    variables = model.init_variables(init_key)
    frozen = frozen_names(config.model.backbone.frozen_stages)
    mask = schedule.trainable(variables["params"], frozen, config.train.only)
    optimizer = schedule.make_optimizer(config.optimizer, total, mask)
    options = FrozenConfigDict(config.train)
    step = guarded(
        partial(train_step, model=model, optimizer=optimizer, options=options), config.train.on_nan
    )
    if checkpoints.latest() is None:
        variables = start_variables(config, variables, categories)
        return Start(step, on_local_devices(create_train_state(run_key, variables, optimizer)), [])
    state = on_local_devices(create_train_state(run_key, variables, optimizer))
    state, pending = checkpoints.restore_newest(
        state, lambda metadata: check_same_run(workdir, metadata, config, categories)
    )
    return Start(step, state, pending)


# Keys that may differ when a run resumes: they do not change the training, or only locate the data.
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
    "data.timeout",
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

LENGTH = ("train.steps", "train.epochs")


def check_same_run(workdir: Path, metadata: Metadata, config: ConfigDict, categories: Categories) -> None:
    """Raise a UserError if the run in `workdir`, described by `metadata`, differs in a relevant setting."""
    if metadata.categories != categories:
        raise UserError(
            f"{workdir}: holds a run on other categories than "
            f"{config.data.train_annotations or config.data.root}; use another --workdir"
        )
    there, here = dict(_leaves(metadata.config)), dict(_leaves(config))
    for key in sorted(there.keys() | here.keys()):
        if there.get(key) != here.get(key) and key in LENGTH:
            raise UserError(
                f"{workdir}: holds a run with config.{key}={there.get(key)}, not {here.get(key)}; a run of "
                "another length has other learning rates from its first steps on: to train further, start a "
                f"new run from its weights with --config.train.init_from={workdir} and another --workdir"
            )
        if there.get(key) != here.get(key) and not key.startswith(FREE):
            raise UserError(
                f"{workdir}: holds a run with config.{key}={there.get(key)}, not {here.get(key)}; "
                "use another --workdir"
            )


def _leaves(config: Any, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield (dotted key, value) of every entry; lists become tuples, since JSON has only lists."""
    if hasattr(config, "items"):
        for key, value in config.items():
            yield from _leaves(value, f"{path}.{key}" if path else key)
    else:
        yield path, _plain(config)


def _plain(value: object) -> object:
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


# Parts that depend on the classes, or that a plain detector lacks. They may keep their initial values.
REPLACEABLE = (
    "params/box_head/logits",
    "params/box_head/deltas",
    "params/mask_head/logits",
    "params/track_head",
)
# Parts that may also keep their initial values if the checkpoint has another neck: they use its features.
AFTER_BACKBONE = ("params/fpn", "params/rpn_head", "params/box_head", "params/mask_head")


def start_variables(config: ConfigDict, variables: dict[str, Any], categories: Categories) -> dict[str, Any]:
    """Load the checkpoint `train.init_from` into `variables`, where it fits.

    Class-dependent layers are loaded by category name, for `categories` that the checkpoint has too. Only
    these layers and the track head may be missing from the checkpoint or have another shape. If just one of
    the two networks has a pyramid, this holds for everything except the backbone.
    """
    if path := config.train.init_from:
        other_neck = read_metadata(path).config.model.neck != config.model.neck
        replaceable = REPLACEABLE + AFTER_BACKBONE if other_neck else REPLACEABLE
        variables, left, matches = store.load_matching(path, variables, categories, replaceable)
        loaded = f"loaded, except {', '.join(left)}" if left else "loaded"
        ours, theirs = ([name for _, name in some] for some in (categories, read_metadata(path).categories))
        new = unmatched(ours, [label for label, place in enumerate(matches) if place is not None])
        unused = unmatched(theirs, matches)
        print(
            f"{path}: {loaded}{'; new categories: ' * bool(new)}{new}"
            f"{'; categories of the checkpoint that are left out: ' * bool(unused)}{unused}"
        )
        check_form(path, config)
    return variables


def check_form(path: str, config: ConfigDict) -> None:
    """Print the settings in which the training of the weights at `path` differs from `config`.

    The shapes of parameters do not show these. Weights adapt to other boxes and RoIs, but not to strides in
    other layers, which raise a UserError.
    """
    for key, ours, theirs in form_differences(config, read_metadata(path).config):
        if key == "backbone.stride_in_1x1":
            raise UserError(
                f"{path}: its backbone has another form; set config.model.{key}={theirs} (it is {ours})"
            )
        print(f"{path}: was trained with config.model.{key}={theirs}; training continues with {ours}")
