"""Checkpoints, in one place: training writes them, inference and training read them (Orbax).

A step folder holds three items: `variables` (parameters and fixed statistics: all that inference needs),
`progress` (step, key, optimiser state: what training needs besides) and `about` (JSON: the config, the
categories, the step). A folder without `progress` is good for inference and for starting anew.
"""

import contextlib
import logging
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from masktrack_jax.checkpoints.categories import carry, class_shape, match_categories
from masktrack_jax.checkpoints.metadata import (
    UNSOUND,
    About,
    describe,
    find_step_folder,
    first_line,
    parse_about,
    read_about,
    read_pending,
    read_scores,
)
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.processes import as_global, as_local, is_first, meet

__all__ = [
    "UNSOUND",
    "About",
    "Checkpoints",
    "describe",
    "find_step_folder",
    "load_matching",
    "load_variables",
    "parse_about",
    "read_about",
    "read_scores",
    "read_variables",
    "system_reason",
    "variables_of",
    "write_variables",
]

logging.getLogger("absl").setLevel(logging.ERROR)  # through which Orbax tells of every file
logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # and of what it cannot write, besides its error


class Checkpoints:
    """The checkpoints of a working folder; a context manager that waits for what is being written."""

    def __init__(self, folder, *, keep=2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(Path(folder).resolve(), options=options)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.wait()
            else:  # what went wrong first is said
                with contextlib.suppress(UserError):
                    self.wait()
        finally:
            with contextlib.suppress(Exception):  # it waits again
                self._manager.close()

    def latest(self):
        """The newest step, or None."""
        return self._manager.latest_step()

    def save(self, state, config, categories, pending=()):
        """Write a `TrainState` in the background; does nothing where its step is there already.

        `pending`: metrics of steps before it that are in no row yet. Raises a UserError where this or the
        checkpoint before it cannot be written; the older ones stay.
        """
        step = int(state.step)
        if step == self.latest():
            return
        state = as_global(state)
        progress = {"step": state.step, "key": state.key, "opt_state": state.opt_state}
        about = describe(config, categories, step) | {"pending": list(pending)}
        with self._writing():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    variables=ocp.args.StandardSave(variables_of(state)),
                    progress=ocp.args.StandardSave(progress),
                    about=ocp.args.JsonSave(about),
                ),
            )

    def wait(self):
        """Wait until all is written. Raises a UserError where it cannot be."""
        with self._writing():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _writing(self):
        try:
            yield
        except Exception as error:  # Orbax, TensorStore and the file system have many of their own
            raise UserError(
                f"{self._manager.directory}: a checkpoint cannot be written ({system_reason(error)}); make "
                "room, the same command then goes on from the checkpoint before it"
            ) from None

    def restore_newest(self, state, check):
        """The `TrainState` of the newest checkpoint that is whole, and the metrics that were `pending`.

        Newer ones that are damaged are said and set aside as `damaged-STEP`. `check(about)` raises what
        speaks against going on. Raises a UserError where none is whole.
        """
        damaged = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            folder = self._manager.directory / str(step)
            try:
                about, pending = read_about(folder), read_pending(folder)
            except UserError as error:
                damaged.append((folder, error))
                continue
            check(about)
            try:
                restored = self.restore(step, state)
            except UserError as error:
                damaged.append((folder, error))
                continue
            self._set_aside(damaged)
            return restored, pending
        raise damaged[0][1]

    def _set_aside(self, damaged):
        for folder, error in damaged if is_first() else ():
            aside = folder.with_name(f"damaged-{folder.name}")
            if aside.exists():
                shutil.rmtree(aside)
            folder.rename(aside)
            print(f"{error}; set aside as {aside.name}, the run goes on from the checkpoint before it")
        if damaged:
            meet()
            self._manager.reload()

    def restore(self, step, state):
        """The `TrainState` of a step; `state` gives the shapes and where arrays go."""
        like = as_global(state)
        progress = {"step": like.step, "key": like.key, "opt_state": like.opt_state}
        wanted = jax.tree.map(ocp.utils.to_shape_dtype_struct, (variables_of(like), progress))
        items = ocp.args.Composite(
            variables=ocp.args.StandardRestore(wanted[0]), progress=ocp.args.StandardRestore(wanted[1])
        )
        try:
            got = self._manager.restore(step, args=items)
        except Exception as error:  # Orbax, TensorStore and the file system have many of their own
            folder = self._manager.directory / str(step)
            raise UserError(
                f"{folder}: is damaged or of another run ({first_line(error)}); use another --workdir"
            ) from None
        stats = got.variables.get("batch_stats", {})
        restored = state._replace(params=got.variables["params"], batch_stats=stats, **got.progress)
        return as_local(restored)


def variables_of(state):
    """The variables of a `TrainState`.

    Without the empty collection of a network that has no fixed statistics: Orbax drops it too.
    """
    return {"params": state.params} | ({"batch_stats": state.batch_stats} if state.batch_stats else {})


def load_variables(path, model):
    """Variables of the checkpoint at `path` for `model`, which must be of the same shapes."""
    return read_variables(path, jax.eval_shape(model.init_variables, jax.random.key(0)))


def read_variables(path, expected):
    """Variables of the checkpoint at `path`, of the shapes of `expected` (arrays or shapes).

    Raises a UserError naming the first parameter that is missing, unknown or of another shape.
    """
    folder = find_step_folder(path)
    stored = _stored_shapes(folder)
    there, wanted = _by_name(stored), _by_name(expected)
    for name in sorted(there.keys() | wanted.keys()):
        if name not in there or name not in wanted or there[name].shape != wanted[name].shape:
            raise UserError(_misfit(folder, name, there, wanted))
    return _read(folder, expected)


def load_matching(path, variables, categories, replaceable):
    """`variables` with the values of the checkpoint at `path`; the names of those that stay; and matches.

    Rows of classes are taken by category name: `categories` (id, name) are those of `variables`, and the
    matches are, for each of them, its place among the checkpoint's or None. What begins with one of
    `replaceable` may be missing there, or be of another shape, and stays as a whole then; anything else that
    does not fit is a UserError. What only the checkpoint has is left out.
    """
    folder = find_step_folder(path)
    others = read_about(folder).categories
    matches = match_categories([name for _, name in categories], [name for _, name in others])
    stored = _stored_shapes(folder)
    there, wanted = _by_name(stored), _by_name(variables)

    def fits(name):
        return name in there and there[name].shape == class_shape(name, wanted[name].shape, len(others))

    whole = set()
    for name in wanted:
        if not fits(name):
            if not name.startswith(tuple(replaceable)):
                raise UserError(_misfit(folder, name, there, wanted))
            whole |= {part for part in replaceable if name.startswith(part)}
    left = [name for name in wanted if name.startswith(tuple(whole))]
    values = _by_name(_read(folder, stored))

    def pick(path, value):
        name = _name(path)
        return value if name in left else jnp.asarray(carry(name, value, values[name], matches))

    return jax.tree_util.tree_map_with_path(pick, variables), left, matches


def _stored_shapes(folder):
    """Tree of what the parameters of a step folder look like."""
    with ocp.StandardCheckpointer() as reader:
        try:
            return reader.metadata((folder / "variables").resolve()).item_metadata.tree
        except Exception as error:  # Orbax, TensorStore and the file system have many of their own
            raise UserError(f"{folder}: the parameters cannot be read ({first_line(error)})") from None


def _read(folder, shapes):
    """The parameters of a step folder, which are of these shapes."""
    # Onto this machine's device: those that wrote it may not be here.
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(tuple(x.shape), np.float32, sharding=here), shapes)
    with ocp.StandardCheckpointer() as reader:
        try:
            return reader.restore((folder / "variables").resolve(), wanted)
        except Exception as error:
            raise UserError(f"{folder}: the parameters cannot be read ({first_line(error)})") from None


def _name(path):
    return "/".join(str(key.key) for key in path)


def _by_name(tree):
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _misfit(folder, name, there, wanted):
    found = tuple(there[name].shape) if name in there else "missing"
    asked = tuple(wanted[name].shape) if name in wanted else "unknown"
    return (
        f"{folder}: is of another architecture or number of classes: {name} is {found} there, "
        f"{asked} in the config"
    )


def write_variables(path, variables, about, scores=None):
    """Write a checkpoint for inference only, without optimiser state, to the new folder `path`.

    `scores`: {name: number} that `read_scores` gives back.
    """
    path = Path(path).resolve()
    args = ocp.args.Composite(
        variables=ocp.args.StandardSave(variables),
        about=ocp.args.JsonSave(describe(*about) | ({"scores": scores} if scores else {})),
    )
    me = jax.process_index()  # of several processes this one writes, and waits for no other
    alone = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me})
    items = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(multiprocessing_options=alone)
    )
    with ocp.Checkpointer(items, multiprocessing_options=alone) as writer:
        writer.save(path, args)


def system_reason(error):
    """What the operating system said, where TensorStore's long message holds it, or else its first line."""
    found = re.search(r"([^:]+) \[os_error_code=", str(error))
    return found[1].strip() if found else first_line(error)
