"""What every converter returns, and the search for frames that the converters share."""

import dataclasses
import itertools
import os
import pathlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from masktrack_jax.data.values import shown
from masktrack_jax.data.vis import find_frame
from masktrack_jax.masks.rle import Rle, encode_mask
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.video.images import IMAGE_SUFFIXES, Size, inspect_image

EMPTY = "masks without a pixel"


@dataclasses.dataclass
class ObjectTrack:
    """One object of a clip: `masks` has one entry per frame, None where the object is not visible."""

    category: str
    masks: list[Rle | None]
    iscrowd: bool = False


@dataclasses.dataclass(frozen=True)
class Clip:
    """A video to write.

    `frames` are (name, path of the image) in order. `tracks(height, width)` reads the objects, given the size
    of the images.
    """

    name: str
    frames: tuple[tuple[str, pathlib.Path], ...]
    tracks: Callable[[int, int], list[ObjectTrack]]


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set to write: its categories (id, name) and its clips. The id is None if the format has none."""

    categories: Sequence[tuple[int | None, str]]
    clips: list[Clip]


@dataclasses.dataclass(frozen=True)
class Report:
    """Numbers of records by kind, for the user: what was left out, and what was changed or looks wrong."""

    left_out: Counter[str] = dataclasses.field(default_factory=Counter)
    notes: Counter[str] = dataclasses.field(default_factory=Counter)


def merge(sources: Sequence[Source], report: Report) -> Source:
    """The sources as one, with one list of categories. Raises UserError if they share a video or a frame."""
    clips = [clip for source in sources for clip in source.clips]
    for first, second in itertools.pairwise(sorted(clip.name for clip in clips)):
        if first == second and len(sources) > 1:
            raise UserError(f"--input: two inputs have a video {first!r}; rename the file or folder of one")
    owners: dict[pathlib.Path, str] = {}
    for clip in clips:
        for path in {path for _, path in clip.frames}:
            if owners.setdefault(path, clip.name) != clip.name:
                raise UserError(
                    f"{path}: is a frame of two videos, {owners[path]!r} and {clip.name!r}; give each video "
                    "its own folder of frames"
                )
    return Source(_one_list([x for source in sources for x in source.categories], report), clips)


def _one_list(given: list[tuple[int | None, str]], report: Report) -> list[tuple[int, str]]:
    """One id for each name: the given ids if they agree, else numbers from 1 in alphabetical order."""
    pairs = list(dict.fromkeys(given))
    names = dict.fromkeys(name for _, name in pairs)
    numbered = [(number, name) for number, name in pairs if number is not None]
    if len(numbered) == len(pairs) == len(names) == len({number for number, _ in pairs}):
        return numbered
    if numbered:
        report.notes["categories whose ids are new, because the given ids or names were not unique"] += len(
            names
        )
    return list(enumerate(sorted(names), start=1))


def encode_seen(mask: np.ndarray, report: Report) -> Rle | None:
    """The RLE of a mask (height, width), or None if it is empty, which is counted."""
    if mask.any():
        return encode_mask(mask)
    report.left_out[EMPTY] += 1
    return None


def note_cut(points: Sequence[float], height: int, width: int, report: Report) -> None:
    """Count a polygon x, y, x, y, … that leaves the frame by more than a pixel."""
    xs, ys = points[::2], points[1::2]
    if min(*xs, *ys) < -1 or max(xs) > width + 1 or max(ys) > height + 1:
        report.notes["polygons that leave the frame, cut at its edge"] += 1


def in_order(names: Iterable[str]) -> list[str]:
    """Names sorted by the numbers in them: frame2 before frame10."""
    return sorted(names, key=lambda name: [(len(x), x) if x.isdecimal() else (0, x) for x in _parts(name)])


def _parts(name: str) -> list[str]:
    # Digits without leading zeros compare by length, then as text; the name itself breaks ties.
    return [part.lstrip("0") if part.isdecimal() else part for part in re.split(r"(\d+)", str(name))] + [
        str(name)
    ]


def list_files(folder: str | pathlib.Path, suffixes: Iterable[str]) -> list[pathlib.Path]:
    """The entries of a folder with one of these suffixes, in any case and in order, but no hidden ones.

    Raises UserError if there is no such folder, or if such an entry is no file.
    """
    folder = pathlib.Path(folder)
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: no such folder; check --input and --images")
    names = [x.name for x in folder.iterdir() if x.suffix.lower() in suffixes and x.name[0] != "."]
    paths = [folder / name for name in in_order(names)]
    for path in paths:
        check_file(path)
    return paths


def list_images(folder: str | pathlib.Path) -> list[pathlib.Path]:
    """The image files of a folder, see `list_files`."""
    return list_files(folder, IMAGE_SUFFIXES)


def list_folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folders in a folder, in order, but no hidden ones."""
    names = [path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]
    return [folder / name for name in in_order(names)]


def check_file(path: pathlib.Path) -> None:
    """Raise UserError for a folder, pipe, device or dangling link: reading one could wait for ever."""
    if not os.path.isfile(path) and os.path.lexists(path):
        raise UserError(f"{path}: is not a file but a folder, a pipe or a dangling link; remove it")


def number_images(folder: str | pathlib.Path) -> dict[int, pathlib.Path]:
    """The images of a folder by the last number in their names, ascending.

    Raises UserError if a name has no number or if two names have the same one.
    """
    images: dict[int, pathlib.Path] = {}
    for image in list_images(folder):
        numbers = re.findall(r"[0-9]+", image.stem)
        if not numbers:
            raise UserError(f"{image}: is not named by its frame's number; rename it")
        other = images.setdefault(int(numbers[-1]), image)
        if other != image:
            raise UserError(f"{image}: has the same number as {other.name}; keep the frame, remove the other")
    return dict(sorted(images.items()))


def by_stem(paths: Iterable[pathlib.Path]) -> dict[str, pathlib.Path]:
    """Files by their names without suffix. Raises UserError if two have the same."""
    found: dict[str, pathlib.Path] = {}
    for path in paths:
        other = found.setdefault(path.stem, path)
        if other != path:
            raise UserError(f"{path}: has the same name as {other.name}; keep one of them")
    return found


def named_file(name: str, folder: pathlib.Path, root: pathlib.Path) -> pathlib.Path:
    r"""The path that `name`, a value in a file, means relative to `folder`; \ separates folders like /.

    Raises ValueError with the reason if it leads out of `root` and of `folder`, directly or through links.
    """
    name = name.replace("\\", "/")
    if not name or re.search(r"^/|^[A-Za-z]:|[\0\ud800-\udfff]", name):
        raise ValueError("is not a relative path")
    path = pathlib.Path(os.path.normpath(folder / name))
    real = pathlib.Path(os.path.realpath(path))
    if not any(real.is_relative_to(os.path.realpath(place)) for place in (folder, root)):
        raise ValueError(f"leads out of {root}")
    return path


def with_any_case(path: pathlib.Path) -> pathlib.Path:
    """The path, with its extension in another case if only that exists, as after a copy from Windows."""
    return find_frame(path.parent, path.name)


def size_error(where: str, stated: Size, found: Size, image: pathlib.Path) -> UserError:
    """The error for labels of another size than their image's, with the EXIF orientation if that is why."""
    cure = turned(stated, found, image) or "correct one of them"
    size = f"{shown(stated[0])}x{shown(stated[1])} (height x width)"
    return UserError(f"{where} {size} but {image} is {found[0]}x{found[1]}; {cure}")


def turned(stated: Size, found: Size, image: pathlib.Path) -> str:
    """The cure if only the EXIF orientation of an image gives it another size than `stated`, else ""."""
    number = inspect_image(image).orientation if stated == found[::-1] else 1
    if number not in (5, 6, 7, 8):
        return ""
    return f"its EXIF orientation {number} turns it: save the image upright, or label it as it is shown"
