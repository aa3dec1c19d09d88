"""Read the parameters of checkpoints, and write checkpoints of parameters alone, with Orbax.

A step folder holds three items: `variables` (parameters and fixed statistics, all that inference needs),
`progress` (step, key and optimiser state, needed to resume training) and `about` (the metadata as JSON),
and the digests of their files. A folder without `progress` can be used for inference and to start a new run.
`steps` writes and reads all three.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from masktrack_jax.checkpoints.categories import carry, class_shape, match_categories
from masktrack_jax.checkpoints.digests import check_digests, write_digests
from masktrack_jax.checkpoints.metadata import Metadata, find_step_folder, first_line, read_metadata
from masktrack_jax.runtime.errors import UserError

logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs every file, and what it raises, through it
logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it logs a failed write twice, and also raises

Tree = Any  # parameters and statistics: a tree of arrays or of shapes
State = Any  # a `TrainState`; its package imports this one
Network = Any  # a `MaskTrackRCNN`, not imported here
KeyPath = Any  # the path to a leaf of a tree


class Loaded(NamedTuple):
    """The result of `load_matching`.

    kept: names of the variables that kept their initial values; matches: for each category its index in the
    checkpoint's categories, or None.
    """

    variables: Tree
    kept: list[str]
    matches: list[int | None]


def variables_of(state: State) -> Tree:
    """The variables of a `TrainState`, without an empty collection of statistics, which Orbax drops too."""
    return {"params": state.params} | ({"batch_stats": state.batch_stats} if state.batch_stats else {})


def load_variables(path: str | Path, model: Network) -> Tree:
    """Variables of the checkpoint at `path` for `model`, which must have the same shapes."""
    return read_variables(path, jax.eval_shape(model.init_variables, jax.random.key(0)))


def read_variables(path: str | Path, expected: Tree) -> Tree:
    """Variables of the checkpoint at `path`, with the shapes of `expected` (arrays or shapes).

    Raises a UserError that names the first parameter that is missing, unknown or of another shape.
    """
    folder = find_step_folder(path)
    stored = _stored_shapes(folder)
    there, wanted = _by_name(stored), _by_name(expected)
    for name in sorted(there.keys() | wanted.keys()):
        if name not in there or name not in wanted or there[name].shape != wanted[name].shape:
            raise UserError(_misfit(folder, name, there, wanted))
    return _read(folder, expected)


def load_matching(
    path: str | Path, variables: Tree, categories: Sequence[tuple[int, str]], replaceable: Sequence[str]
) -> Loaded:
    """Load the values of the checkpoint at `path` into `variables`, where they fit.

    Per-class values are matched by category name; `categories` (id, name) belong to `variables`. A part whose
    name begins with one of `replaceable` keeps its initial values if one of its variables is missing from the
    checkpoint or has another shape. Any other mismatch raises a UserError. Variables that only the checkpoint
    has are ignored.
    """
    folder = find_step_folder(path)
    others = read_metadata(folder).categories
    matches = match_categories([name for _, name in categories], [name for _, name in others])
    stored = _stored_shapes(folder)
    there, wanted = _by_name(stored), _by_name(variables)

    def fits(name: str) -> bool:
        return name in there and there[name].shape == class_shape(name, wanted[name].shape, len(others))

    whole: set[str] = set()
    for name in wanted:
        if not fits(name):
            if not name.startswith(tuple(replaceable)):
                raise UserError(_misfit(folder, name, there, wanted))
            whole |= {part for part in replaceable if name.startswith(part)}
    kept = [name for name in wanted if name.startswith(tuple(whole))]
    values = _by_name(_read(folder, stored))

    def pick(path: KeyPath, value: Tree) -> Tree:
        name = _name(path)
        return value if name in kept else jnp.asarray(carry(name, value, values[name], matches))

    return Loaded(jax.tree_util.tree_map_with_path(pick, variables), kept, matches)


def _stored_shapes(folder: Path) -> Tree:
    """The shapes of a step folder's parameters, which are compared with their digests, as a tree."""
    check_digests(folder, ["variables"])
    with ocp.StandardCheckpointer() as reader:
        try:
            return reader.metadata((folder / "variables").resolve()).item_metadata.tree
        except Exception as error:  # Orbax, TensorStore and the file system raise many types
            raise UserError(f"{folder}: the parameters cannot be read ({first_line(error)})") from None


def _read(folder: Path, shapes: Tree) -> Tree:
    """Read the parameters of a step folder, with the given shapes."""
    # Onto a device of this machine: the devices that wrote them may not exist here.
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(tuple(x.shape), np.float32, sharding=here), shapes)
    with ocp.StandardCheckpointer() as reader:
        try:
            return reader.restore((folder / "variables").resolve(), wanted)
        except Exception as error:
            raise UserError(f"{folder}: the parameters cannot be read ({first_line(error)})") from None


def _name(path: KeyPath) -> str:
    return "/".join(str(key.key) for key in path)


def _by_name(tree: Tree) -> dict[str, Any]:
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _misfit(folder: Path, name: str, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    found = tuple(there[name].shape) if name in there else "missing"
    asked = tuple(wanted[name].shape) if name in wanted else "unknown"
    return (
        f"{folder}: is of another architecture or number of classes: {name} is {found} there, "
        f"{asked} in the config"
    )


def write_variables(
    path: str | Path, variables: Tree, metadata: Metadata, scores: Mapping[str, float] | None = None
) -> None:
    """Write a checkpoint for inference only, without optimiser state, to the new folder `path`.

    `scores`: read back by `read_scores`.
    """
    path = Path(path).resolve()
    args = ocp.args.Composite(
        variables=ocp.args.StandardSave(variables),
        about=ocp.args.JsonSave(metadata.to_json() | ({"scores": scores} if scores else {})),
    )
    alone = only_this_process()
    items = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(multiprocessing_options=alone)
    )
    with ocp.Checkpointer(items, multiprocessing_options=alone) as writer:
        writer.save(path, args)
    write_digests(path)


def only_this_process() -> ocp.options.MultiprocessingOptions:
    """Options of Orbax with which this process writes without waiting for the others of the run."""
    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me})


def system_reason(error: Exception) -> str:
    """The operating system's reason in a long message of TensorStore, else the first line of the message."""
    found = re.search(r"([^:]+) \[os_error_code=", str(error))
    return found[1].strip() if found else first_line(error)
