"""Set A: the synthetic weights, and the network built from them."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from masktrack_jax.checkpoints import store
from masktrack_jax.checkpoints.metadata import Metadata, read_metadata
from masktrack_jax.interop import names
from masktrack_jax.interop.__main__ import main as import_weights
from masktrack_jax.models.masktrack_rcnn import build_model

from .recorded import document
from .weights import tensor

# Computation in float64 leaves the recordings' own noise: JAX_ENABLE_X64=1.
DTYPE = "float64" if jax.config.jax_enable_x64 else "float32"
SALT = 0
SOURCES = {"mm": "mmtracking", "orig": "original"}
# Parts of mmtracking's names, and the authors' for them.
TO_ORIGINAL = (("detector.", ""), ("roi_head.", ""), ("track_head.embed_head.fcs", "track_head.fcs"))


def mmtracking_weights() -> dict[str, np.ndarray]:
    """{mmtracking's name: array}."""
    return {name: tensor(name, shape, SALT) for name, shape, _ in document("names_shapes")["entries"]}


def to_original(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Convert mmtracking's names and class order, background last, to the authors', background first."""
    converted = {}
    for name, value in tensors.items():
        if "fc_cls" in name:
            value = np.roll(value, 1, axis=0)
        elif "fc_reg" in name or "conv_logits" in name:
            unused = 4 if "fc_reg" in name else 1
            value = np.pad(value, [(unused, 0)] + [(0, 0)] * (value.ndim - 1))
        for theirs, ours in TO_ORIGINAL:
            name = name.replace(theirs, ours)
        converted[name] = value
    return converted


def as_recorded(variables: dict[str, Any], form: str) -> dict[str, np.ndarray]:
    """Return our variables, or arrays of their shapes, as {recorded name: array} of a form."""
    flat = flatten_dict(variables, sep="/")
    tensors = {}
    for path, entry in names.table(variables).items():
        prefix = "" if entry.name.startswith("track_head") else "detector."
        tensors[prefix + entry.name] = names.to_torch(np.asarray(flat[path]), entry.layout)
    return tensors if form == "mm" else to_original(tensors)


@cache
def checkpoint(form: str) -> Path:
    """Return the folder of the checkpoint imported from the weights in a form, "mm" or "orig"."""
    folder = Path(tempfile.mkdtemp(prefix="goldens-"))
    weights = mmtracking_weights() if form == "mm" else to_original(mmtracking_weights())
    save_file(weights, folder / "weights.safetensors")
    arguments = [
        "--input",
        folder / "weights.safetensors",
        "--source",
        SOURCES[form],
        "--output",
        folder / form,
    ]
    import_weights([str(argument) for argument in arguments])
    (folder / "weights.safetensors").unlink()
    return folder / form


@cache
def network(form: str) -> tuple[Metadata, dict[str, Any]]:
    """Return the metadata of a form's checkpoint, and its variables."""
    about = read_metadata(checkpoint(form))
    model = build_model(about.config, len(about.categories))
    return about, jax.device_get(store.load_variables(checkpoint(form), model))
