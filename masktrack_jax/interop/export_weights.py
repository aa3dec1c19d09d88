"""Convert a checkpoint to a `.safetensors` file with mmtracking's names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from safetensors import SafetensorError
from safetensors.numpy import save_file

from masktrack_jax.checkpoints import store
from masktrack_jax.checkpoints.metadata import read_metadata
from masktrack_jax.interop import names
from masktrack_jax.interop.files import OURS
from masktrack_jax.models.masktrack_rcnn import build_model
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import whole


def mmtracking_name(name: str) -> str:
    """Return mmtracking's name of a tensor from mmdet's name."""
    return name if name.startswith("track_head.") else f"detector.{name}"


def export_tensors(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return {mmtracking's name: array in PyTorch's layout} of a network's variables."""
    tensors = {}
    arrays = flatten_dict(variables, sep="/")
    for path, (name, layout) in names.table(variables).items():
        name = mmtracking_name(name)
        tensors[name] = np.ascontiguousarray(names.to_torch(np.asarray(arrays[path]), layout))
        if name.endswith("running_var"):
            tensors[name.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    return tensors


def export_weights(checkpoint: str | Path, output: str | Path) -> None:
    """Write a checkpoint to the new file `output`, atomically."""
    output = Path(output)
    if output.suffix != ".safetensors":
        raise UserError(f"{output}: give an --output that ends in .safetensors")
    if output.exists():
        raise UserError(f"{output}: exists; remove it or choose another --output")
    metadata = read_metadata(checkpoint)
    model = build_model(metadata.config, len(metadata.categories))
    variables = store.load_variables(checkpoint, model)
    header = {"format": "pt", OURS: json.dumps(metadata.to_json())}
    with whole(output) as partial:
        try:
            save_file(export_tensors(variables), partial, header)
        except SafetensorError as error:  # also raised for a full disk
            raise OSError(str(error)) from error
