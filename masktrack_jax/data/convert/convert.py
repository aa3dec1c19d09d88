"""Convert data sets of another annotation format into the layout of YouTube-VIS."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from PIL import Image

from masktrack_jax.data.convert import coco, cvat, labelme, mots, palette
from masktrack_jax.data.convert.source import Clip, Report, Source, merge
from masktrack_jax.data.convert.writer import Counts, check_output, write
from masktrack_jax.data.json_files import read_text
from masktrack_jax.runtime.errors import UserError

PathLike = str | os.PathLike[str]


class Kind(NamedTuple):
    """A format: its reader, and the names of the options that the reader accepts and requires."""

    read: Callable[..., Source]
    takes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


KINDS = {
    "davis": Kind(palette.read, ("categories",)),
    "youtube-vos": Kind(palette.read, ("categories",)),
    "coco": Kind(coco.read, ("images", "frames"), ("images",)),
    "mots": Kind(mots.read, ("images",)),
    "labelme": Kind(labelme.read),
    "cvat": Kind(cvat.read, ("images",)),
}


class Converted(NamedTuple):
    """The path of the annotations, what was written, and the numbers of records by kind, see `Report`."""

    annotations: pathlib.Path
    counts: Counts
    left_out: dict[str, int]
    notes: dict[str, int]


def convert(
    kind: str,
    inputs: PathLike | Sequence[PathLike],
    output: PathLike,
    *,
    images: PathLike | Sequence[PathLike] | None = None,
    videos: PathLike | None = None,
    link: bool = False,
    progress: bool = False,
    **options: Any,
) -> Converted:
    """Convert one or more `inputs` of a kind in `KINDS` to the new folder `output`, as one data set.

    `images` is one path for all inputs, or one for each. `videos` is a text file with the names of the videos
    to convert, one a line or separated by spaces; default: all. `options` are passed to the kind's
    reader. Raises UserError.
    """
    paths, pictures = _paths(inputs), _paths(images)
    given = {*options, *(["images"] if pictures else [])}
    for name in sorted(given - set(KINDS[kind].takes)):
        raise UserError(f"--{name}: not for --from {kind}; leave it out")
    for name in KINDS[kind].needs:
        if name not in given:
            raise UserError(f"--{name}: --from {kind} needs it; see --help")
    if len(pictures) not in (0, 1, len(paths)):
        raise UserError(
            f"--images: {len(pictures)} paths for {len(paths)} inputs; give one for all, or one for each"
        )
    check_output(pathlib.Path(output))
    report = Report()
    with contextlib.ExitStack() as stack:
        sources = []
        for number, path in enumerate(paths):
            if pictures:
                options["images"] = pictures[min(number, len(pictures) - 1)]
                _check_images(kind, options["images"])
            if kind == "cvat":
                options["extract"] = functools.partial(_extract, stack, report, link)
            try:
                sources.append(KINDS[kind].read(path, report, **options))
            except OSError as error:
                raise UserError(
                    f"{error.filename}: cannot be read ({error.strerror}); check --input"
                ) from None
        source = merge(sources, report)
        if videos is not None:
            source = dataclasses.replace(source, clips=_chosen(source.clips, videos, report))
        counts = write(source, output, kind, report, link=link, progress=progress)
    told = (
        {name: count for name, count in kinds.items() if count} for kinds in (report.left_out, report.notes)
    )
    return Converted(pathlib.Path(output) / "instances.json", counts, *told)


def _paths(given: PathLike | Sequence[PathLike] | None) -> list[pathlib.Path]:
    if given is None:
        return []
    return [pathlib.Path(x) for x in ([given] if isinstance(given, str | os.PathLike) else given)]


def _check_images(kind: str, path: pathlib.Path) -> None:
    """Raise UserError unless frames can be read at this path: in a folder, or for CVAT in a video file."""
    if path.is_dir():
        return
    if not path.is_file():
        raise UserError(f"{path}: no such folder of frames; check --images")
    if kind != "cvat":
        raise UserError(f"{path}: is a file; give the folder of the frames as --images")


def _extract(
    stack: contextlib.ExitStack,
    report: Report,
    link: bool,
    path: pathlib.Path,
    wanted: Callable[[int], bool],
) -> dict[int, pathlib.Path]:
    """Write the wanted frames of a video file as images, in a folder that is deleted when `stack` is closed.

    Returns their paths by frame number.
    """
    from masktrack_jax.video.files import open_video  # takes time to load

    if link:
        raise UserError(f"--link: the frames of {path} are no files to link to; leave it out")
    images, count = {}, 0
    video = open_video(path)
    try:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="masktrack_convert_"))
        for frame in video.frames():
            if wanted(count):
                images[count] = pathlib.Path(folder) / f"{count:06d}.jpg"
                Image.fromarray(frame).save(images[count], quality=95)
            count += 1
    except OSError as error:
        raise UserError(
            f"{path}: its frames cannot be written to {tempfile.gettempdir()} ({error.strerror}); "
            "set TMPDIR to a folder with space"
        ) from None
    kind = "frames that a video states but that cannot be decoded, so labels behind them may be shifted"
    report.notes[kind] += max((video.length or 0) - count, 0)
    return images


def _chosen(clips: list[Clip], path: PathLike, report: Report) -> list[Clip]:
    """The clips whose names are in a text file, whole lines or words."""
    names = {clip.name for clip in clips}
    lines = [line.strip() for line in read_text(pathlib.Path(path)).splitlines()]
    chosen = {name for line in lines for name in ([line] if line in names else line.split())}
    if unknown := sorted(chosen - names):
        raise UserError(f"{path}: {unknown[0]} is not among the videos; correct the list")
    report.left_out[f"videos that {pathlib.Path(path).name} does not name"] += len(names - chosen)
    return [clip for clip in clips if clip.name in chosen]
