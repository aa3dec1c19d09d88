"""Checkpoints, in one place: training writes them, inference and training read them (Orbax).

A step folder holds three items: `variables` (parameters and fixed statistics: all that inference needs),
`progress` (step, key, optimiser state: what training needs besides) and `about` (JSON: the config, the
categories, the step). A folder without `progress` is good for inference and for starting anew.
"""

import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from masktrack_jax.errors import UserError

logging.getLogger("absl").setLevel(logging.ERROR)  # through which Orbax tells of every file


class About(NamedTuple):
    """What a checkpoint says of itself."""

    config: ConfigDict
    categories: list  # of (id, name), in the order of the labels
    step: int


class Checkpoints:
    """The checkpoints of a working folder; a context manager that waits for what is being written."""

    def __init__(self, folder, *, keep=2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(Path(folder).resolve(), options=options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._manager.wait_until_finished()
        self._manager.close()

    def latest(self):
        """The newest step, or None."""
        return self._manager.latest_step()

    def save(self, state, config, categories):
        """Write a `TrainState` in the background; does nothing where its step is there already."""
        step = int(state.step)
        if step == self.latest():
            return
        progress = {"step": state.step, "key": state.key, "opt_state": state.opt_state}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                variables=ocp.args.StandardSave(_variables(state.params, state.batch_stats)),
                progress=ocp.args.StandardSave(progress),
                about=ocp.args.JsonSave(_about(config, categories, step)),
            ),
        )

    def restore(self, step, state):
        """The `TrainState` of a step; `state` gives the shapes and where arrays go."""
        progress = {"step": state.step, "key": state.key, "opt_state": state.opt_state}
        wanted = jax.tree.map(
            ocp.utils.to_shape_dtype_struct, (_variables(state.params, state.batch_stats), progress)
        )
        got = self._manager.restore(
            step,
            args=ocp.args.Composite(
                variables=ocp.args.StandardRestore(wanted[0]), progress=ocp.args.StandardRestore(wanted[1])
            ),
        )
        return state._replace(
            params=got.variables["params"],
            batch_stats=got.variables.get("batch_stats", {}),
            **got.progress,
        )


def _variables(params, batch_stats):
    """Without the empty collection of a network that has no fixed statistics: Orbax drops it too."""
    return {"params": params} | ({"batch_stats": batch_stats} if batch_stats else {})


def _about(config, categories, step):
    return {"config": json.loads(config.to_json()), "categories": [list(c) for c in categories], "step": step}


def find_step_folder(path):
    """The step folder that `path` is, holds, or holds in `checkpoints/`: of several the newest."""
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such checkpoint folder; give a training folder or one of its steps")
    for folder in (path, path / "checkpoints"):
        if (folder / "about").is_dir():
            return folder
        steps = [p for p in folder.glob("*") if p.name.isdigit() and (p / "about").is_dir()]
        if steps:
            return max(steps, key=lambda p: int(p.name))
    raise UserError(f"{path}: holds no checkpoint; give a training folder or one of its steps")


def read_about(path):
    """`About` of the checkpoint at `path`."""
    file = find_step_folder(path) / "about" / "metadata"
    try:
        about = json.loads(file.read_text())
        categories = [(int(i), str(name)) for i, name in about["categories"]]
        return About(ConfigDict(about["config"]), categories, int(about["step"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: cannot be read as a checkpoint's description ({error})") from None


def read_variables(path, expected):
    """Variables of the checkpoint at `path`, of the shapes of `expected` (arrays or shapes).

    Raises a UserError naming the first parameter that is missing, unknown or of another shape.
    """
    folder = find_step_folder(path)
    with ocp.StandardCheckpointer() as reader:
        try:
            there = reader.metadata((folder / "variables").resolve()).item_metadata.tree
        except Exception as error:
            raise UserError(f"{folder}: the parameters cannot be read ({_first_line(error)})") from None
        _check_shapes(folder, there, expected)
        # Onto this machine's device: those that wrote it may not be here.
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, np.float32, sharding=here), expected)
        try:
            return reader.restore((folder / "variables").resolve(), wanted)
        except Exception as error:
            raise UserError(f"{folder}: the parameters cannot be read ({_first_line(error)})") from None


def write_variables(path, variables, about):
    """Write a checkpoint for inference only, without optimiser state, to the new folder `path`."""
    path = Path(path).resolve()
    args = ocp.args.Composite(
        variables=ocp.args.StandardSave(variables),
        about=ocp.args.JsonSave(_about(about.config, about.categories, about.step)),
    )
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as writer:
        writer.save(path, args)


def _check_shapes(folder, there, expected):
    def shapes(tree: Any):
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {"/".join(str(k.key) for k in path): tuple(leaf.shape) for path, leaf in leaves}

    there, expected = shapes(there), shapes(expected)
    for name in sorted(there.keys() | expected.keys()):
        if there.get(name) != expected.get(name):
            raise UserError(
                f"{folder}: is of another architecture or number of classes: {name} is "
                f"{there.get(name, 'missing')} there, {expected.get(name, 'unknown')} in the config"
            )


def _first_line(error):
    return str(error).strip().split("\n")[0][:200]
