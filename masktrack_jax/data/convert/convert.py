"""Convert a data set of another annotation format into the layout of YouTube-VIS."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from masktrack_jax.data.convert import coco, cvat, labelme, mots, palette
from masktrack_jax.data.convert.writer import Clip, Source, write
from masktrack_jax.data.json_files import read_text
from masktrack_jax.runtime.errors import UserError


class Kind(NamedTuple):
    """A format: its reader, and the names of the options that the reader accepts and requires."""

    read: Callable[..., Source]
    takes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


KINDS = {
    "davis": Kind(palette.read),
    "youtube-vos": Kind(palette.read),
    "coco": Kind(coco.read, ("images", "frames"), ("images",)),
    "mots": Kind(mots.read, ("images",)),
    "labelme": Kind(labelme.read),
    "cvat": Kind(cvat.read, ("images",)),
}


def convert(
    kind: str,
    input_path: str | Path,
    output: str | Path,
    *,
    videos: str | Path | None = None,
    link: bool = False,
    progress: bool = False,
    **options: Any,
) -> tuple[Path, dict[str, int]]:
    """Convert `input_path`, of a kind in `KINDS`, to the new folder `output`.

    `videos` is a text file with the names of the videos to convert, separated by whitespace; default: all.
    `options` are passed to the kind's reader. Returns the path of the annotations, and the number of records
    left out by reason. Raises UserError.
    """
    for name in options.keys() - set(KINDS[kind].takes):
        raise UserError(f"--{name}: not for --from {kind}; leave it out")
    for name in KINDS[kind].needs:
        if name not in options:
            raise UserError(f"--{name}: --from {kind} needs it; see --help")
    source = KINDS[kind].read(input_path, **options)
    if videos is not None:
        source = dataclasses.replace(source, clips=_chosen(source.clips, videos))
    annotations = write(source, output, kind, link=link, progress=progress)
    return annotations, {reason: count for reason, count in source.left_out.items() if count}


def _chosen(clips: list[Clip], path: str | Path) -> list[Clip]:
    """The clips whose names are in a text file."""
    names = read_text(path).split()
    unknown = sorted(set(names) - {clip.name for clip in clips})
    if unknown:
        raise UserError(f"{path}: {unknown[0]} is not among the videos; correct the list")
    return [clip for clip in clips if clip.name in set(names)]
