"""Writing that leaves nothing half-done behind."""

import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

from masktrack_jax.runtime.errors import UserError


def make_folder(path):
    """`path` as a Path, made if need be and tried for writing."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)  # another process of the run tries it, too
    except OSError as error:
        raise UserError(f"{path}: cannot be written to ({error.strerror}); give another folder") from None
    return path


def is_inside(name):
    """Whether `name`, a path that a file holds, stays below the folder that it is relative to."""
    parts = re.split(r"[/\\]", name)
    return not (parts[0] == "" or ".." in parts or "\0" in name)


def sync(path):
    """Wait until the disk has what was written to a file, so that a loss of power does not take it."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def lock(file, message):
    """Keep other processes from locking an open file until it is closed, in whatever way.

    Raises a UserError, `message`, where another one has locked it. Does nothing where there are no locks:
    on Windows, and on file systems without.
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
def whole(path, advice="choose another --output"):
    """Give a path to write a file or a folder at that becomes `path` when the block ends well, else nothing.

    A file of that name is replaced, so that a reader sees the old one or the new one; a folder only where it
    is empty. Raises a UserError, with `advice`, for whatever the disk refuses.
    """
    target = Path(os.path.abspath(path))
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
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        elif partial.exists():
            partial.unlink()
