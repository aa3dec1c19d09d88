"""Videos made of pictures: a folder with one image per frame, and an image file with several pages."""

import hashlib
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from masktrack_jax.runtime.errors import UserError
from masktrack_jax.video.decode import RATES, reason, warn
from masktrack_jax.video.images import IMAGE_SUFFIXES, as_rgb, open_image, pages_of, read_image
from masktrack_jax.video.stored import StoredVideo, check_file, content_digest
from masktrack_jax.video.waiting import LIMIT, within

# Pictures that are not read; messages count them.
OTHER_PICTURES = {
    *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".exr", ".tga"),
    *(".ppm", ".pgm", ".jfif"),
}
PAGED = {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}  # how TIFF files begin
FOLDER_FPS = 10.0  # for pictures, which have no rate; data sets like YouTube-VIS have 5 or 6
BLOCKS = 4  # of each image for the fingerprint of a folder: all of an image up to 256 KiB
Order = tuple[list[tuple[float, str]], str]


class FrameFolder(StoredVideo):
    """A folder with one image per frame, in natural order of their names (2.jpg before 10.jpg).

    Raises a UserError if it holds no images, images of two kinds (`000.jpg` and `000_mask.png`), or a link or
    pipe with the name of an image.
    """

    live = False

    def __init__(self, path: str | Path, limit: float = LIMIT) -> None:
        self.path, self._limit = Path(path), limit
        found = listed(self.path)
        names = [file.name for file in found if file.suffix.lower() in IMAGE_SUFFIXES]
        others = Counter(suffix for file in found if (suffix := file.suffix.lower()) not in IMAGE_SUFFIXES)
        if not names:
            pictures = {suffix: count for suffix, count in others.items() if suffix in OTHER_PICTURES}
            hint = f"{counted(pictures)} cannot be read: convert them to JPEG or PNG" if pictures else ""
            raise UserError(f"{self.path}: holds no images; {hint or 'expected frames such as 00000.jpg'}")
        if others:
            warn("%s: left out what is no frame: %s", self.path, counted(others))
        orders = natural_orders(names)
        check_one_kind(self.path, orders)
        self.files = [self.path / name for name in sorted(names, key=lambda name: orders[name])]
        for file in self.files:
            check_file(file)
        self.height, self.width = _read_frame(self.files[0]).shape[:2]
        self.fps = FOLDER_FPS
        self.length = len(self.files)

    def fingerprint(self) -> str:
        """The number of images, and the digest of their names, sizes and contents (see `content_digest`)."""
        digest = hashlib.sha256()
        contents = (content_digest(file, BLOCKS) for file in self.files)
        for file, content in zip(self.files, within(self._limit, str(self.path), contents), strict=True):
            digest.update(os.fsencode(file.name) + b"\0" + content.encode() + b"\n")
        return f"{self.length} images, {digest.hexdigest()}"

    def frames(self, start: int = 0) -> Iterator[np.ndarray]:
        """Iterate over the frames from `start`."""
        return within(self._limit, str(self.path), map(_read_frame, self.files[start:]))


class PageFile(StoredVideo):
    """An image file with several pages, each of which is a frame: a TIFF stack or an animated WebP."""

    live = False

    def __init__(self, path: str | Path, limit: float = LIMIT) -> None:
        self.path, self._limit = Path(path), limit
        with open_image(self.path) as image:
            self._pages = pages_of(image)
        self.length = len(self._pages)
        self.height, self.width = next(self._read(0)).shape[:2]
        with open_image(self.path) as image:
            image.load()
            duration = image.info.get("duration") or 0  # milliseconds
        rate = 1000 / duration if duration else FOLDER_FPS
        self.fps = rate if RATES[0] <= rate <= RATES[1] else FOLDER_FPS

    def fingerprint(self) -> str:
        """The size of the file and a digest of its bytes."""
        return content_digest(self.path, 64)

    def frames(self, start: int = 0) -> Iterator[np.ndarray]:
        """Iterate over the pages from `start`."""
        return within(self._limit, str(self.path), self._read(start))

    def _read(self, start: int) -> Iterator[np.ndarray]:
        with open_image(self.path) as image:
            for page in self._pages[start:]:
                image.seek(page)
                yield as_rgb(image, self.path)


def is_paged(path: Path) -> bool:
    """Whether a file is a TIFF or WebP picture of several pages, of which FFmpeg would read one only."""
    try:
        with open(path, "rb") as file:
            head = file.read(12)
        if head[:4] not in PAGED and (head[:4], head[8:]) != (b"RIFF", b"WEBP"):
            return False
        with open_image(path) as image:
            return len(pages_of(image)) > 1
    except (OSError, UserError):  # FFmpeg may read what Pillow does not
        return False


def _read_frame(path: Path) -> np.ndarray:
    """Read an image of a folder, which must be a regular file of one page."""
    check_file(path)
    return read_image(path)


def listed(folder: Path) -> list[Path]:
    """The entries of a folder that are not hidden."""
    try:
        return [entry for entry in folder.iterdir() if entry.name[0] != "."]
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({reason(error)})") from None


def natural_orders(names: Collection[str]) -> dict[str, Order]:
    """Sorting keys of names that put frame2 before frame10, and -3 before 8.

    A dash before a number is a sign if a name that is otherwise alike has none there.
    """
    parts = {name: re.split(r"(-?\d+)", name) for name in names}
    dashes: dict[tuple[tuple[str, ...], int], set[bool]] = defaultdict(set)
    for words in parts.values():
        for place in range(1, len(words), 2):
            dashes[tuple(words[::2]), place].add(words[place][0] == "-")
    orders: dict[str, Order] = {}
    for name, words in parts.items():
        key: list[tuple[float, str]] = []
        text = words[0]
        for place in range(1, len(words), 2):
            number = words[place]
            if number[0] == "-" and len(dashes[tuple(words[::2]), place]) == 1:
                text, number = text + "-", number[1:]
            key += [(math.inf, text), (int(number), "")]
            text = words[place + 1]
        orders[name] = [*key, (math.inf, text)], name
    return orders


def check_one_kind(folder: Path, orders: dict[str, Order]) -> None:
    """Raise a UserError if a frame of a folder has two images, such as 000.jpg and 000_mask.png.

    Two names are of one frame if they differ in words but have the same numbers, or if they differ only in
    the suffix. With different suffixes, one may also have more numbers at its end (000.jpg and
    000_part_1.png).
    """
    first: dict[tuple[Any, ...], tuple[tuple[str, ...], str]] = {}
    for name, (key, _) in sorted(orders.items(), key=lambda item: (len(item[1][0]), item[0])):
        numbers = tuple(number for number, text in key if not text and number != math.inf)
        words = tuple(text for number, text in key if number == math.inf)
        suffix = Path(name).suffix.lower()
        known, other = first.setdefault(numbers or (Path(name).stem,), (words, name))
        if known == words:
            known, other = first.get(numbers[:1], (words, name))
            if Path(other).suffix.lower() == suffix:
                continue
        if known != words:
            raise UserError(
                f"{folder}: holds two kinds of images, such as {other} and {name}; keep only the frames of "
                "one video there"
            )


def counted(suffixes: dict[str, int]) -> str:
    """Numbers of files by suffix, as text; the entry "" counts folders and names without suffix."""
    return ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in sorted(suffixes.items()))
