"""What all videos on disk have in common: their attributes, and checks and digests of their files."""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from masktrack_jax.runtime.errors import UserError
from masktrack_jax.video.decode import reason

BLOCK = 1 << 16  # bytes that `content_digest` reads at a time
KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class StoredVideo(Protocol):
    """A video on disk. Its frames are (H, W, 3) uint8 RGB and can be read any number of times.

    Attributes:
      height, width: size of the first frame.
      fps: frames per second.
      length: number of frames, None if the file does not state it.
      live: False, unlike for a `LiveSource`, which can be read only once.
    """

    height: int
    width: int
    fps: float
    length: int | None
    live: bool

    def fingerprint(self) -> str:
        """A string that identifies the frames; a copy of the video has the same one."""

    def frames(self, start: int = 0) -> Iterator[np.ndarray]:
        """Iterate over the frames from `start`. Raises `UserError` for a frame that cannot be read."""


def stat_of(path: Path) -> os.stat_result | None:
    """The status of the file at `path`, None if there is none. Raises a UserError if it cannot be told."""
    try:
        if path.is_symlink() and not path.exists():
            raise UserError(f"{path}: is a link to {os.readlink(path)}, which does not exist; remove it")
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # a name that is too long or has a null character
        raise UserError(f"{path}: cannot be opened ({reason(error)})") from None


def check_file(path: Path) -> None:
    """Raise a UserError unless `path` is a regular file: reading from others may never end."""
    found = stat_of(path)
    if found is None:
        raise UserError(f"{path}: no such file")
    if not stat.S_ISREG(found.st_mode):
        kind = KINDS.get(stat.S_IFMT(found.st_mode), "of another kind")
        raise UserError(f"{path}: is {kind}, not a file with frames; leave it out, or give another --input")


def content_digest(path: Path, blocks: int) -> str:
    """The size of a file and the digest of its bytes; of a large file, of `blocks` blocks spread over it."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size <= blocks * BLOCK:
                starts = list(range(0, size, BLOCK))
            else:
                starts = [(size - BLOCK) * number // (blocks - 1) for number in range(blocks)]
            for start in starts:
                file.seek(start)
                digest.update(file.read(BLOCK))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({reason(error)})") from None
    return f"{size} bytes, {digest.hexdigest()}"
