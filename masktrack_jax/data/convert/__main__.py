"""Convert a data set into the layout of YouTube-VIS.

    python -m masktrack_jax.data.convert --from davis --input DAVIS --output data/davis

writes `data/davis/JPEGImages/<video>/…` and `data/davis/instances.json`. KIND and its --input:

    davis, youtube-vos   folder with Annotations (palette PNGs) and JPEGImages
    coco                 instances json; its images below --images
    mots                 folder of <video>.txt with frames in --images/<video>, or of <video>/gt/gt.txt
    labelme              folder of jsons beside their frames, or of such folders
    cvat                 annotations.xml of "CVAT for video 1.1", or its folder; frames in --images
"""

import argparse
from collections.abc import Sequence

from masktrack_jax.data.convert.convert import KINDS, convert
from masktrack_jax.runtime import cli


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m masktrack_jax.data.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--from", dest="kind", required=True, choices=KINDS)
    parser.add_argument("--input", required=True, help="file or folder to convert")
    parser.add_argument("--output", required=True, help="folder to write; must be empty or not exist")
    parser.add_argument("--images", help="folder of the frames (coco, mots, cvat)")
    parser.add_argument("--frames", type=_positive, help="how often to repeat an image (coco; default: 1)")
    parser.add_argument(
        "--videos", default=None, help="text file with the names of the videos to convert (default: all)"
    )
    parser.add_argument(
        "--link", action="store_true", default=False, help="link the frames instead of copying them"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; print the number of records left out, by reason, and the path of the annotations."""
    values = vars(_parser().parse_args(arguments))
    kind, input_path, output = values.pop("kind"), values.pop("input"), values.pop("output")
    annotations, left_out = convert(kind, input_path, output, progress=True, **values)
    for reason, count in left_out.items():
        print(f"left out: {count} {reason}")
    print(annotations)


if __name__ == "__main__":
    cli.run(main)
