"""Local copies of what is at a URL, made when they are first read, in a folder of bounded size.

`local` gives the place of a copy, and `fetched` makes it. The tests of paths (`is_file`, …) ask the store for
these places, once for each folder and process, and the disk for all other paths. A copy is made again if the
size or time of the object differs. The limit is `MASKTRACK_REMOTE_GB`; records of packed data sets, which are
fetched whole, are not counted.
"""

import contextlib
import functools
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

from tqdm import tqdm

from masktrack_jax.runtime import remote
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.remote import COPIES, Entry

T = TypeVar("T")
LIMIT_GB = 100.0
FULL = 0.9  # of the limit is left when old copies are deleted
CHECKED = 50  # the size is measured each time this part of the limit has been fetched
RECENT = 600.0  # seconds in which a copy was used that is not deleted
PINNED = ".array_record"  # part of the names of files that are read for the whole run

_fetched, _counting = [0], threading.Lock()  # bytes since the size was measured


def local(path: T) -> T | Path:
    """The place of the copy of a URL, which may not be there yet; other paths are returned as they are."""
    return remote.place(str(path), COPIES) if remote.is_url(path) else path


@functools.cache
def _listing(url: str) -> Mapping[str, Entry]:
    return remote.listing(url)


@functools.cache
def _single(url: str) -> Entry | None:
    return remote.entry(url)


def _entry(path: str | Path, url: str) -> Entry | None:
    """What the store has at the place `path` of `url`."""
    parent = remote.url_of(Path(path).parent)
    if "/" in parent.partition("://")[2]:
        return _listing(parent).get(Path(path).name)
    return _single(url)  # a bucket may be large, or be closed but for some folders


def is_file(path: str | Path) -> bool:
    """`os.path.isfile`, for places of URLs too."""
    if url := remote.url_of(path):
        found = _entry(path, url)
        return found is not None and not found.folder
    return os.path.isfile(path)


def is_dir(path: str | Path) -> bool:
    """`os.path.isdir`, for places of URLs too."""
    if url := remote.url_of(path):
        found = _entry(path, url)
        return found is not None and found.folder
    return os.path.isdir(path)


def exists(path: str | Path) -> bool:
    """`os.path.exists`, for places of URLs too."""
    return _entry(path, url) is not None if (url := remote.url_of(path)) else os.path.exists(path)


def lexists(path: str | Path) -> bool:
    """`os.path.lexists`, for places of URLs too."""
    return _entry(path, url) is not None if (url := remote.url_of(path)) else os.path.lexists(path)


def names(folder: str | Path) -> list[str]:
    """`os.listdir`, for places of URLs too, and sorted."""
    return sorted(_listing(url) if (url := remote.url_of(folder)) else os.listdir(folder))


def inside(folder: str | Path) -> list[tuple[str, bool]]:
    """The names in a folder and whether each is a folder, sorted; an OSError if there is none."""
    if url := remote.url_of(folder):
        return sorted((name, entry.folder) for name, entry in _listing(url).items())
    with os.scandir(folder) as entries:
        return sorted((entry.name, entry.is_dir()) for entry in entries)


def look_ahead(folders: Sequence[Path]) -> None:
    """List many folders at once, where they are places of URLs: one by one they take long."""
    urls = filter(None, map(remote.url_of, dict.fromkeys(folders)))
    remote.at_once(_listing, urls)


def fetched(path: str | Path) -> Path:
    """`path`, where the newest copy is if it is the place of a URL. Without an object there is no file."""
    path = Path(path)
    if not (url := remote.url_of(path)):
        return path
    entry = _entry(path, url)
    if entry is None or entry.folder:
        with contextlib.suppress(OSError):
            path.unlink()
        return path
    if not _is_current(path, entry):
        _fetch(path, url, entry)
    return path


def _is_current(path: Path, entry: Entry) -> bool:
    try:
        found = path.stat()
        if found.st_size != entry.size or int(found.st_mtime) != int(entry.time):
            return False
        if found.st_atime < time.time() - RECENT / 2:
            os.utime(path, (time.time(), found.st_mtime))
    except OSError:
        return False
    return True


def _fetch(path: Path, url: str, entry: Entry) -> None:
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}-{threading.get_ident()}")
    try:
        remote.get(url, partial)
        os.utime(partial, (time.time(), entry.time))
        os.replace(partial, path)
    except FileNotFoundError:
        return  # it was deleted since the folder was listed
    except OSError as error:
        raise UserError(
            f"{remote.root()}: cannot be written to ({error.strerror}); free disk space, or set "
            "MASKTRACK_REMOTE to another folder, or MASKTRACK_REMOTE_GB to fewer GB"
        ) from None
    finally:
        partial.unlink(missing_ok=True)
    _count(entry.size)


def open_copy(path: str | Path) -> BinaryIO | None:
    """The bytes at a place of a URL; None for any other path, and if there is no object."""
    if remote.url_of(path):
        for _ in range(3):  # another process may delete the copy before it is open
            with contextlib.suppress(FileNotFoundError):
                return open(fetched(path), "rb")
    return None


def fetched_files(paths: Sequence[Path], what: str) -> None:
    """Fetch many files at once, with a progress bar; does nothing for paths that are no places of URLs."""
    paths = [path for path in paths if remote.url_of(path)]
    if paths:
        with tqdm(total=len(paths), desc=f"fetch {what}", unit="file", disable=None) as bar:
            remote.at_once(lambda path: (fetched(path), bar.update()), paths)


def fetched_tree(path: str | Path, what: str) -> Path:
    """`path`, with all that is in it if it is the place of a folder at a URL."""
    if not remote.url_of(path) or not is_dir(path):
        return fetched(path)
    found = list(_below(Path(path)))
    fetched_files(found, what)
    return Path(path)


def _below(folder: Path) -> list[Path]:
    names = inside(folder)
    files = [folder / name for name, is_folder in names if not is_folder]
    return files + [path for name, is_folder in names if is_folder for path in _below(folder / name)]


def summary(folder: Path, total: int) -> str:
    """How many of `total` files in a folder at a URL are here, to end a line; empty for a local folder."""
    if not remote.url_of(folder):
        return ""
    here = min(sum(len(files) for _, _, files in os.walk(folder)), total)
    return (
        f", {here} of them on this disk, the others fetched when first read (at most {_limit() / 1e9:g} GB)"
    )


def _limit() -> float:
    text = os.environ.get("MASKTRACK_REMOTE_GB") or str(LIMIT_GB)
    try:
        limit = float(text) * 1e9
    except ValueError:
        limit = 0.0
    if not limit > 0:
        raise UserError(f"MASKTRACK_REMOTE_GB={text}: must be a positive number; correct it")
    return limit


def _count(size: int) -> None:
    """Count fetched bytes, and delete the copies that were not used for the longest time above the limit."""
    with _counting:
        _fetched[0] += size
        if _fetched[0] < _limit() / CHECKED:
            return
        _fetched[0] = 0
    delete_old(_limit())


def delete_old(limit: float) -> None:
    """Delete the copies that were not used for the longest time, down to `FULL` of `limit` bytes."""
    found: list[tuple[float, int, str]] = []
    for folder, _, names in os.walk(remote.root() / COPIES):
        for name in names:
            with contextlib.suppress(OSError):
                if PINNED not in name:
                    state = os.stat(path := os.path.join(folder, name))
                    found.append((state.st_atime, state.st_size, path))
    total = sum(size for _, size, _ in found)
    if total <= limit:
        return
    for used, size, path in sorted(found):
        if total <= FULL * limit or used > time.time() - RECENT:
            return
        with contextlib.suppress(OSError):
            os.unlink(path)
            total -= size
