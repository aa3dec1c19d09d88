"""Generate a labelled data set in the layout of YouTube-VIS.

    python -m masktrack_jax.data.generate --output data/shapes --videos 200 --seed 0

writes `data/shapes/JPEGImages/<video>/00000.jpg …` and `data/shapes/instances.json` (compressed RLE of the
visible part of each object, boxes and areas per frame, null where it is not visible). The same command writes
the same bytes, and reuses a finished output.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from masktrack_jax.data.generate.options import PRESETS, SHORT, GeneratorOptions
from masktrack_jax.runtime import cli
from masktrack_jax.runtime.errors import UserError
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


def _refuse_without_effect(given: dict[str, Any], values: dict[str, Any]) -> None:
    """Raise a UserError for a flag on the command line, other than None in `given`, that changes nothing."""
    short, alone = values["frames"] < SHORT, values["max_objects"] == 1
    for name, useless, cure in (
        ("leave", short, f"--frames {SHORT} or more"),
        ("enter", short, f"--frames {SHORT} or more"),
        ("same_category", alone, "--max-objects 2 or more"),
    ):
        if given[name] and useless:
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag}: has no effect here; give {cure}, or leave it out")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; print the path of the annotations."""
    parser = _parser()
    preset = parser.parse_known_args(arguments)[0].preset
    parser.set_defaults(**PRESETS.get(preset, {}))
    values = vars(parser.parse_args(arguments))
    output, workers, _ = (values.pop(name) for name in ("output", "workers", "preset"))
    require(workers, at_least(0), "--workers")
    parser.set_defaults(**dict.fromkeys(values))
    _refuse_without_effect(vars(parser.parse_args(arguments)), values)
    from masktrack_jax.data.generate.write import generate  # not at the top: --help needs no OpenCV

    print(generate(output, GeneratorOptions(**values), workers=workers))


if __name__ == "__main__":
    cli.command(main)
