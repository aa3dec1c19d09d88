"""Convert data sets into the layout of YouTube-VIS.

    python -m masktrack_jax.data.convert --from davis --input DAVIS --output data/davis

writes `data/davis/JPEGImages/<video>/…` and `data/davis/instances.json`. KIND and its --input:

    davis, youtube-vos   folder with Annotations (palette PNGs) and JPEGImages
    coco                 instances json; its images below --images. Frames of one folder whose annotations
                         have track ids are one video, any other image is a video of one frame
    mots                 folder of <video>.txt with frames in --images/<video>, or of <video>/gt/gt.txt
    labelme              folder of jsons beside their frames, or of such folders
    cvat                 annotations.xml of "CVAT for video 1.1", its folder, or a folder of several; --images
                         is the video file itself or a folder of images named by their frame numbers

Several inputs become one data set with one list of categories:

    python -m masktrack_jax.data.convert --from cvat --input 1.xml 2.xml --images 1.mp4 2.mp4 --output data
"""

import argparse
from collections.abc import Sequence

from masktrack_jax.data.convert.convert import KINDS, convert
from masktrack_jax.runtime import cli


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
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
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        action="extend",
        help="files or folders to convert into one data set",
    )
    parser.add_argument("--output", required=True, help="folder to write; must be empty or not exist")
    parser.add_argument(
        "--images",
        nargs="+",
        action="extend",
        help="folder of the frames (coco, mots, cvat) or video file (cvat): one for all inputs, or one each",
    )
    parser.add_argument("--frames", type=_positive, help="how often to repeat an image (coco; default: 1)")
    parser.add_argument(
        "--categories",
        help="davis, youtube-vos: the category of all objects, as NAME, or a json file with "
        '{"1": NAME, …} by object number, for all videos, or {VIDEO: {"1": NAME, …}, …} '
        "(default: meta.json or davis_semantics.json in --input, else `object`)",
    )
    parser.add_argument(
        "--videos", default=None, help="text file with the names of the videos to convert (default: all)"
    )
    parser.add_argument(
        "--link", action="store_true", default=False, help="link the frames instead of copying them"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; print what was written and left out, by kind, and the path of the annotations."""
    values = vars(_parser().parse_args(arguments))
    kind, inputs, output = values.pop("kind"), values.pop("input"), values.pop("output")
    done = convert(kind, inputs, output, progress=True, **values)
    for word, kinds in (("left out", done.left_out), ("note", done.notes)):
        for name, count in kinds.items():
            print(f"{word}: {count} {name}")
    counts = ", ".join(f"{count} {name}" for name, count in done.counts._asdict().items())
    print(f"written: {counts} (objects are the masks of the tracks in single frames)")
    print(done.annotations)


if __name__ == "__main__":
    cli.command(main)
