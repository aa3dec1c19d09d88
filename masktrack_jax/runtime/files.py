"""File-system helpers: atomic writes, file locks, and checks of paths."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from masktrack_jax.runtime.errors import UserError


def make_folder(path: str | Path) -> Path:
    """Create the folder `path` if it does not exist; raises a UserError if it cannot be written to."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)  # another process of the run may have removed it
    except OSError as error:
        raise UserError(f"{path}: cannot be written to ({error.strerror}); give another folder") from None
    return path


def is_inside(name: str) -> bool:
    """Whether the relative path `name`, read from a file, stays below the folder it is relative to."""
    parts = re.split(r"[/\\]", name)
    return not (parts[0] == "" or ".." in parts or "\0" in name)


def sync(path: str | Path) -> None:
    """Flush a file to the disk, so that it survives a loss of power."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def lock(file: IO[Any], message: str) -> None:
    """Lock an open file until it is closed or the process ends.

    Raises a UserError with `message` if another process holds the lock. Does nothing where locks are not
    supported: on Windows and on some file systems.
    """
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(message) from None
    except OSError:
        pass


@contextmanager
def whole(path: str | Path, advice: str = "choose another --output") -> Iterator[Path]:
    """Write atomically: yields a temporary path that is renamed to `path` on success and deleted on error.

    An existing file is replaced, so a reader sees the old one or the new one. An existing folder is replaced
    only if it is empty, a pipe or device never. Raises a UserError that ends with `advice` if writing fails.
    """
    target = Path(os.path.abspath(path))
    if os.path.exists(target) and not (os.path.isfile(target) or os.path.isdir(target)):
        raise UserError(f"{path}: is a pipe or device, not a file; {advice}")
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, target)
    except OSError as error:
        named = Path(os.path.abspath(error.filename or target))
        if partial not in (named, *named.parents) and named not in (target, *target.parents):
            raise UserError(f"{error.filename}: {error.strerror}; it is needed for {path}") from error
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); {advice}") from error
    finally:
        if os.path.isdir(partial):  # unlike Path.is_dir, also for a name that is too long
            shutil.rmtree(partial, ignore_errors=True)
        elif os.path.exists(partial):
            partial.unlink()
