"""Write a checkpoint's parameters as a `.safetensors` file with mmtracking's names.

    python -m masktrack_jax.interop.export --checkpoint runs/r50 --output r50.safetensors

It loads there as the state dict of a network of the same config. Not all of ours can be had there: the
command says where weights were trained in another form than mmtracking's, and group norm has other groups.
`python -m masktrack_jax.interop --source mmtracking` gives the same checkpoint back, bit for bit: the config
and the categories are in the file's header.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict
from safetensors import SafetensorError
from safetensors.numpy import save_file

from masktrack_jax.checkpoints import store
from masktrack_jax.checkpoints.metadata import read_metadata
from masktrack_jax.config.base import base_config
from masktrack_jax.config.presets import form_differences
from masktrack_jax.interop import names
from masktrack_jax.interop.files import OURS
from masktrack_jax.models.masktrack_rcnn import build_model
from masktrack_jax.runtime import cli
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import whole


def mmtracking_name(name):
    """mmtracking's name of a tensor, of mmdet's."""
    return name if name.startswith("track_head.") else f"detector.{name}"


def export_tensors(variables):
    """{mmtracking's name: array in PyTorch's layout} of a network's variables."""
    tensors = {}
    arrays = flatten_dict(variables, sep="/")
    for path, (name, layout) in names.table(variables).items():
        name = mmtracking_name(name)
        tensors[name] = np.ascontiguousarray(names.to_torch(np.asarray(arrays[path]), layout))
        if name.endswith("running_var"):
            tensors[name.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    return tensors


def export(checkpoint, output):
    """Write the checkpoint at `checkpoint` to the new file `output`, which appears complete or not at all."""
    output = Path(output)
    if output.suffix != ".safetensors":
        raise UserError(f"{output}: give an --output that ends in .safetensors")
    if output.exists():
        raise UserError(f"{output}: exists; remove it or choose another --output")
    about = read_metadata(checkpoint)
    variables = store.load_variables(checkpoint, build_model(about.config, len(about.categories)))
    header = {"format": "pt", OURS: json.dumps(about.to_json())}
    with whole(output) as partial:
        try:
            save_file(export_tensors(variables), partial, header)
        except SafetensorError as error:  # a full disk is one, too
            raise OSError(str(error)) from error


def main(arguments=None):
    """Run the command; prints the file's path."""
    parser = argparse.ArgumentParser(
        prog="python -m masktrack_jax.interop.export", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--checkpoint", required=True, help="training folder, or one of its steps")
    parser.add_argument("--output", required=True, help=".safetensors file to write; must not exist")
    options = parser.parse_args(arguments)
    export(options.checkpoint, options.output)
    for key, ours, theirs in form_differences(read_metadata(options.checkpoint).config, base_config()):
        print(f"these weights go with config.model.{key}={ours}; mmtracking has {theirs}")
    print(options.output)


if __name__ == "__main__":
    cli.run(main)
