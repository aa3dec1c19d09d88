"""A folder of clips: videos, and folders with one image per frame."""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from masktrack_jax.video.decode import warn
from masktrack_jax.video.images import IMAGE_SUFFIXES
from masktrack_jax.video.pictures import OTHER_PICTURES, counted, listed, natural_orders
from masktrack_jax.video.stored import stat_of
from masktrack_jax.video.waiting import LIMIT, answer

VIDEO_SUFFIXES = {
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".wmv"),
    *(".3gp", ".flv", ".ogv", ".gif", ".mjpeg", ".mjpg", ".h264", ".264", ".h265", ".265", ".hevc", ".y4m"),
}


def places_of_clips(source: str, output: str, limit: float = LIMIT) -> dict[Path, Path]:
    """Return {clip: output folder} of the clips in a folder `source`, in natural order; {} if it is none.

    `source` is no folder of clips if it holds images itself. Clips may be at any depth. The output folder of
    a clip has its name, without the suffix unless two clips share it. Nothing in `output` is a clip.
    """
    folder = Path(source)
    found = answer(limit, source, lambda: stat_of(folder))
    if source == "-" or found is None or not stat.S_ISDIR(found.st_mode):
        return {}
    clips = answer(limit, source, lambda: list(_clips(folder, {Path(os.path.realpath(output))})))
    names = {clip: clip.relative_to(folder) for clip in clips}
    short = {clip: name if clip.is_dir() else name.with_suffix("") for clip, name in names.items()}
    uses = Counter([*short.values(), *names.values()])  # a.mp4.mov may not take the place of a.mp4
    alone = {clip: uses[place] == 1 + (place == names[clip]) for clip, place in short.items()}
    return {clip: Path(output) / (short[clip] if alone[clip] else names[clip]) for clip in clips}


def _clips(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Yield the clips in a folder, which is added to the folders `seen`: links may form a circle."""
    seen.add(Path(os.path.realpath(folder)))
    entries = {entry.name: entry for entry in listed(folder)}
    if _has_pictures(folder, IMAGE_SUFFIXES):
        return
    others, found = Counter[str](), False
    orders = natural_orders(entries)
    for name in sorted(entries, key=lambda name: orders[name]):
        entry = entries[name]
        if entry.is_dir():
            if Path(os.path.realpath(entry)) in seen:
                continue
            if not _has_pictures(entry, IMAGE_SUFFIXES | OTHER_PICTURES):
                yield from _clips(entry, seen)
                continue
        elif entry.suffix.lower() not in VIDEO_SUFFIXES:
            others[entry.suffix.lower()] += 1
            continue
        found = True
        yield entry
    if others and found:
        warn("%s: left out what is no video: %s", folder, counted(others))


def _has_pictures(folder: Path, suffixes: set[str]) -> bool:
    return any(entry.suffix.lower() in suffixes for entry in listed(folder))
