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
import dataclasses

from masktrack_jax.data.convert import coco, cvat, labelme, mots, palette
from masktrack_jax.data.convert.writer import read_text, write
from masktrack_jax.runtime import cli
from masktrack_jax.runtime.errors import UserError

# kind: (reader, the options it takes, those it needs)
KINDS = {
    "davis": (palette.read, (), ()),
    "youtube-vos": (palette.read, (), ()),
    "coco": (coco.read, ("images", "frames"), ("images",)),
    "mots": (mots.read, ("images",), ()),
    "labelme": (labelme.read, (), ()),
    "cvat": (cvat.read, ("images",), ()),
}


def convert(kind, input_path, output, *, videos=None, link=False, progress=False, **options):
    """Convert `input_path`, of a kind in `KINDS`, to the new folder `output`.

    `videos`: a text file with the name of a video a line; the others are left out. `options` go to the
    kind's reader. Returns (path of the annotations, {what was left out: how many}). Raises UserError.
    """
    reader, taken, needed = KINDS[kind]
    for name in options.keys() - set(taken):
        raise UserError(f"--{name}: not for --from {kind}; leave it out")
    for name in needed:
        if name not in options:
            raise UserError(f"--{name}: --from {kind} needs it; see --help")
    source = reader(input_path, **options)
    if videos is not None:
        source = dataclasses.replace(source, clips=_chosen(source.clips, videos))
    annotations = write(source, output, kind, link=link, progress=progress)
    return annotations, {kind: count for kind, count in source.left_out.items() if count}


def _chosen(clips, path):
    names = read_text(path).split()
    unknown = sorted(set(names) - {clip.name for clip in clips})
    if unknown:
        raise UserError(f"{path}: {unknown[0]} is not among the videos; correct the list")
    return [clip for clip in clips if clip.name in set(names)]


def _positive(text):
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return int(text)


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m masktrack_jax.data.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--from", dest="kind", required=True, choices=KINDS)
    parser.add_argument("--input", required=True, help="what to convert")
    parser.add_argument("--output", required=True, help="folder to write; must not hold anything")
    parser.add_argument("--images", help="folder of the frames (coco, mots, cvat)")
    parser.add_argument("--frames", type=_positive, help="how often to repeat an image (coco; default: 1)")
    parser.add_argument("--videos", default=None, help="text file of the videos to convert (default: all)")
    parser.add_argument("--link", action="store_true", default=False, help="link the frames, do not copy")
    return parser


def main(arguments=None):
    """Run the command; prints what was left out, and the path of the annotations."""
    values = vars(_parser().parse_args(arguments))
    kind, input_path, output = values.pop("kind"), values.pop("input"), values.pop("output")
    annotations, left_out = convert(kind, input_path, output, progress=True, **values)
    for what, count in left_out.items():
        print(f"left out: {count} {what}")
    print(annotations)


if __name__ == "__main__":
    cli.run(main)
