"""Convert the weights of another implementation to a checkpoint.

    python -m masktrack_jax.interop --input mask_rcnn.pth --source torchvision --output weights/coco

Then train from it (`--config.train.init_from=weights/coco`), or run it if it has a track head. The sources:
`original` is the authors' MaskTrackRCNN; `mmdet` is Mask R-CNN of any version in pytorch style; `torchvision`
is maskrcnn_resnet50_fpn or a ResNet classifier; `detectron2` is its default style (BGR, stride in the 1×1);
`detectron2-pytorch` is the style of its networks trained from torchvision's ResNet.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from masktrack_jax.interop.category_lists import LISTS
from masktrack_jax.interop.source_names import SOURCES
from masktrack_jax.runtime import cli
from masktrack_jax.runtime.errors import UserError, printable
from masktrack_jax.runtime.files import whole
from masktrack_jax.runtime.options import between, require


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m masktrack_jax.interop",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    lists = f"{', '.join(LISTS)}, or a JSON file: annotations or a list of names"
    add = parser.add_argument
    add("--input", required=True, help=".safetensors, .pth, .pt or .pkl file")
    add("--source", required=True, choices=SOURCES, help="implementation that wrote the file")
    add("--output", required=True, help="folder of the checkpoint; must not exist")
    add("--categories", help=f"categories to detect (default: the file's categories): {lists}")
    add(
        "--file-categories",
        help="the file's categories, if it does not name them (default: guessed from their number)",
    )
    add(
        "--batch-norm-epsilon",
        type=float,
        help="of the file's batch norm (default: 0 for torchvision's frozen detectors, else 1e-5)",
    )
    add("--seed", type=int, default=0, help="seed of weights that the file lacks (default: %(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command. Prints what was loaded, what was not, and the folder."""
    options = _parser().parse_args(arguments)
    if Path(options.output).exists():
        raise UserError(f"{options.output}: exists; remove it or choose another --output")
    require(options.seed, between(0, 2**63 - 1), "--seed")
    # Not at the top, so that --help does not load JAX.
    from masktrack_jax.checkpoints import store
    from masktrack_jax.interop.convert import import_weights

    imported = import_weights(
        options.input,
        options.source,
        categories=options.categories,
        file_categories=options.file_categories,
        epsilon=options.batch_norm_epsilon,
        seed=options.seed,
    )
    with whole(options.output) as partial:
        store.write_variables(partial, imported.variables, imported.metadata)
    print(*map(printable, imported.lines), options.output, sep="\n")


if __name__ == "__main__":
    cli.command(main)
