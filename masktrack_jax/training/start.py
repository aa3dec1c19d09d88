"""How a run begins: anew, from other weights, or where it was."""

from functools import partial

import jax
from ml_collections import FrozenConfigDict

from masktrack_jax.checkpoints import store
from masktrack_jax.checkpoints.metadata import read_metadata
from masktrack_jax.config.presets import form_differences
from masktrack_jax.models.masktrack_rcnn import build_model
from masktrack_jax.models.resnet import frozen_names
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.processes import on_local_devices
from masktrack_jax.training import schedule
from masktrack_jax.training.nonfinite import guarded
from masktrack_jax.training.step import create_train_state, train_step


def begin(config, categories, total, workdir, checkpoints):
    """The step of one device, the state to go on from, and the metrics that were pending there.

    `total`: steps of the whole run; `checkpoints`: the `Checkpoints` of `workdir`.
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
        return step, on_local_devices(create_train_state(run_key, variables, optimizer)), []
    state = on_local_devices(create_train_state(run_key, variables, optimizer))
    state, pending = checkpoints.restore_newest(
        state, lambda about: check_same_run(workdir, about, config, categories)
    )
    return step, state, pending


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
        if read_metadata(path).config.model.neck != config.model.neck:
            replaceable += AFTER_BACKBONE
        variables, left, matches = store.load_matching(path, variables, categories, replaceable)
        loaded = f"loaded, but for {', '.join(left)}" if left else "loaded"
        new = [name for (_, name), place in zip(categories, matches) if place is None]
        print(f"{path}: {loaded}{'; new categories: ' * bool(new)}{', '.join(new)}")
        check_form(path, config)
    return variables


def check_form(path, config):
    """What shapes do not tell: say which values the weights at `path` were trained with instead of ours.

    They adapt to other boxes and RoIs, but not to another place of the strides: that is a UserError.
    """
    for key, ours, theirs in form_differences(config, read_metadata(path).config):
        if key == "backbone.stride_in_1x1":
            raise UserError(
                f"{path}: its backbone is of another kind; set config.model.{key}={theirs} (it is {ours})"
            )
        print(f"{path}: was made with config.model.{key}={theirs}; goes on with {ours}")
