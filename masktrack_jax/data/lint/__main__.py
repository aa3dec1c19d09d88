"""Report all errors in a data set in the YouTube-VIS format, with counts and examples.

    python -m masktrack_jax.data.lint data/train/instances.json --frames data/train/JPEGImages

checks the annotations and every frame. Without --frames it uses the same folder as training, and skips the
frames if that folder does not exist. The exit status is 1 if there are errors. Notes (a video without labels,
a gap in the category ids) are not errors.
"""

import argparse
from collections.abc import Sequence

from masktrack_jax.data.lint.dataset import lint
from masktrack_jax.runtime import cli


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m masktrack_jax.data.lint",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("annotations", help="the annotations file")
    parser.add_argument("--frames", help="folder that its `file_names` are relative to")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command: print the findings; the exit status is 1 if there are errors."""
    options = _parser().parse_args(arguments)
    findings = lint(options.annotations, options.frames, progress=True)
    findings.conclude(options.annotations)


if __name__ == "__main__":
    cli.command(main)
