"""Generate a labelled data set in the layout of YouTube-VIS.

    python -m masktrack_jax.data.generate --output data/shapes --videos 200 --seed 0

writes `data/shapes/JPEGImages/<video>/00000.jpg …` and `data/shapes/instances.json` (compressed RLE of the
visible part of each object, boxes and areas per frame, null where it is not visible). The same command writes
the same bytes, and reuses a finished output.
"""

import argparse
import dataclasses
from collections.abc import Sequence

from masktrack_jax.data.generate.options import PRESETS, GeneratorOptions
from masktrack_jax.runtime import cli
from masktrack_jax.runtime.options import at_least, require


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m masktrack_jax.data.generate", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--output", required=True, help="folder to write; must not contain anything else")
    names = ", ".join(PRESETS)
    parser.add_argument("--preset", choices=PRESETS, help=f"values for the options below: {names}")
    parser.add_argument("--workers", type=int, default=0, help="worker processes (default: 0, none)")
    for field in dataclasses.fields(GeneratorOptions):
        flag, comment = "--" + field.name.replace("_", "-"), field.metadata["comment"]
        if field.default is dataclasses.MISSING:
            parser.add_argument(flag, type=field.type, required=True, help=comment)
        elif field.name == "categories":
            text = f"{comment}, some of {' '.join(field.default)}"
            parser.add_argument(flag, nargs="+", default=field.default, metavar="NAME", help=text)
        else:
            text = f"{comment} (default: %(default)s)"
            parser.add_argument(flag, type=field.type, default=field.default, help=text)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; print the path of the annotations."""
    parser = _parser()
    preset = parser.parse_known_args(arguments)[0].preset
    parser.set_defaults(**PRESETS.get(preset, {}))
    values = vars(parser.parse_args(arguments))
    output, workers, _ = (values.pop(name) for name in ("output", "workers", "preset"))
    require(workers, at_least(0), "--workers")
    from masktrack_jax.data.generate.write import generate  # not at the top: --help needs no OpenCV

    print(generate(output, GeneratorOptions(**values), workers=workers))


if __name__ == "__main__":
    cli.run(main)
