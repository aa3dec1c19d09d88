"""Pack a data set into a few large files (ArrayRecord), which copy and read faster than many JPEGs.

    python -m masktrack_jax.data.pack --root data/ytvis_2019 --output data/packed

packs the splits found below the root (see `data.layouts`) into `data/packed/vis_frames/youtubevis2019/1.0.0`.
Training with `--config.data.root=data/packed` uses the same batches. Other programs can read it without
TensorFlow: `tfds.data_source("vis_frames/youtubevis2019", data_dir="data/packed", split="train")`. The
annotations files are copied beside the records, so packing does not change scores.
"""

import argparse

from masktrack_jax.data.pack.write import pack
from masktrack_jax.runtime import cli


def main() -> None:
    """Run the command; print the folder to train from."""
    parser = argparse.ArgumentParser(
        prog="python -m masktrack_jax.data.pack", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--root", required=True, help="folder of the data set, or of several")
    parser.add_argument(
        "--name",
        default="",
        help="data set to pack, if there are several: youtubevis2019, …, or its folder's name",
    )
    parser.add_argument(
        "--splits", nargs="+", default=(), choices=("train", "valid", "test"), help="default: all"
    )
    parser.add_argument("--output", required=True, help="folder for packed data sets")
    parser.add_argument("--shards", type=int, help="files per split; default: by size")
    arguments = parser.parse_args()
    target = pack(
        arguments.root,
        arguments.output,
        name=arguments.name,
        splits=arguments.splits,
        shards=arguments.shards,
    )
    print(f"{target}: train from it with --config.data.root={target}")


if __name__ == "__main__":
    cli.command(main)
