"""File-system helpers: atomic writes and checks of paths."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


def is_same_file(one: str | Path, other: str | Path) -> bool:
    """Whether two paths lead to the same file; False if there is none."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def sync(path: str | Path) -> None:
    """Flush a file to the disk, so that it survives a loss of power."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def check_replaceable(path: str | Path, advice: str = "choose another --output") -> None:
    """Raise a UserError for a device, a pipe, or /dev/stdout: a file in its place would damage the system."""
    folder = os.path.realpath(os.path.dirname(os.path.abspath(path)))
    of_system = folder == "/dev" or folder.startswith("/proc/")
    if of_system or (os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path))):
        raise UserError(f"{path}: is a device or a pipe, which a file would replace; {advice}")


@contextmanager
def whole(path: str | Path, advice: str = "choose another --output") -> Iterator[Path]:
    """Write atomically: yields a temporary path that is renamed to `path` on success and deleted on error.

    An existing file is replaced, so a reader sees the old one or the new one. An existing folder is replaced
    only if it is empty, a pipe or device never. Raises a UserError that ends with `advice` if writing fails.
    """
    check_replaceable(path, advice)
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
        if os.path.isdir(partial):  # unlike `Path.is_dir`, false for a name that is too long
            shutil.rmtree(partial, ignore_errors=True)
        elif os.path.exists(partial):
            partial.unlink()
