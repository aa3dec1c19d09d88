"""Write a checkpoint's parameters as a `.safetensors` file with mmtracking's names.

    python -m masktrack_jax.interop.export --checkpoint runs/r50 --output r50.safetensors

mmtracking loads the file as the state dict of a network with the same config. It cannot represent all of our
networks: its group norm has other groups. The command prints the settings of the weights that differ from
mmtracking's. `python -m masktrack_jax.interop --source mmtracking` restores the same checkpoint, bit for bit,
since the file's header contains the config and the categories.
"""

import argparse
from collections.abc import Sequence

from masktrack_jax.runtime import cli


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; print the path of the file."""
    parser = argparse.ArgumentParser(
        prog="python -m masktrack_jax.interop.export", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--checkpoint", required=True, help="training folder, or one of its steps")
    parser.add_argument("--output", required=True, help=".safetensors file to write; must not exist")
    options = parser.parse_args(arguments)
    # Not at the top, so that --help does not load JAX.
    from masktrack_jax.checkpoints.metadata import read_metadata
    from masktrack_jax.config.base import base_config
    from masktrack_jax.config.presets import form_differences
    from masktrack_jax.interop.export_weights import export_weights

    export_weights(options.checkpoint, options.output)
    for key, ours, theirs in form_differences(read_metadata(options.checkpoint).config, base_config()):
        print(f"these weights need config.model.{key}={ours}; mmtracking uses {theirs}")
    print(options.output)


if __name__ == "__main__":
    cli.run(main)
