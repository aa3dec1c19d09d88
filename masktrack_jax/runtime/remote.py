"""Objects at gs:// and s3:// URLs: their places on the local disk, and the calls that read and write them.

A URL has two places below `root()`: `copies/gs/BUCKET/KEY` holds a copy of what is there (`copies`), and
`work/gs/BUCKET/KEY` the files of a command that writes there (`outputs`, `checkpoints.mirror`). Code uses
these paths like any others, and messages show them as URLs. fsspec is imported for URLs alone.
"""

import contextlib
import functools
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from masktrack_jax.runtime import errors
from masktrack_jax.runtime.errors import UserError, one_line

T = TypeVar("T")
PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}  # what fsspec needs for these schemes
LOUD = ("gcsfs", "s3fs", "aiobotocore", "botocore", "google.auth", "asyncio")
COPIES, WORK = "copies", "work"
AT_ONCE = 16  # requests in flight
TIMES = ("mtime", "updated", "LastModified", "created")  # the names of the time of change, by library


class StoreError(UserError):
    """A store that cannot be read or written to; it may answer later."""


class Entry(NamedTuple):
    """What a listing says of a name: a folder, or an object with its size and time of change."""

    folder: bool
    size: int = 0
    time: float = 0.0


def is_url(path: object) -> bool:
    """Whether `path` is a URL of a store. What exists under this name is a local file."""
    scheme, mark, _ = str(path).partition("://")
    return bool(mark) and scheme in PACKAGES and not os.path.lexists(str(path))


def root() -> Path:
    """The folder for the files of URLs: `MASKTRACK_REMOTE`, by default in the user's cache folder."""
    return _resolved(os.environ.get("MASKTRACK_REMOTE") or "", os.environ.get("XDG_CACHE_HOME") or "~/.cache")


@functools.cache
def _resolved(given: str, caches: str) -> Path:
    return Path(given or f"{caches}/masktrack_jax/remote").expanduser().resolve()


@functools.cache
def _start(folder: Path, tree: str) -> str:
    return f"{folder / tree}"


def place(url: str, tree: str) -> Path:
    """The path of a URL in a tree of places, `COPIES` or a form of `WORK`."""
    scheme, _, rest = url.partition("://")
    parts = rest.strip("/").split("/")
    if not all(map(_is_name, parts)):
        raise UserError(f"{url}: is no address of an object; give SCHEME://BUCKET/NAME")
    errors.shown_as[f"{root() / tree / scheme}/"] = f"{scheme}://"
    return root().joinpath(tree, scheme, *parts)


def url_of(path: object, tree: str = COPIES) -> str:
    """The URL whose place in a tree `path` is, `COPIES` or a form of `WORK`; empty for any other path."""
    text, start = str(path), _start(root(), tree)
    parts = text[len(start) :].split("/", 2) if text.startswith(start) else ()
    if len(parts) < 3:
        return ""
    number, scheme, rest = parts
    errors.shown_as[f"{start}{number}/{scheme}/"] = f"{scheme}://"  # the path may come from another process
    return f"{scheme}://{rest}"


@contextlib.contextmanager
def _reported(url: str, doing: str) -> Iterator[None]:
    """Turn the exceptions of a store's library into a `StoreError`, except for a missing object."""
    try:
        yield
    except (UserError, FileNotFoundError, FileExistsError):
        raise
    except Exception as error:  # of aiohttp, botocore, google.auth and others
        denied = isinstance(error, PermissionError) or "credentials" in str(error).lower()
        advice = "check the credentials" if denied else "check the address and the network"
        reason = one_line(error).rstrip(".")
        raise StoreError(f"{url}: cannot be {doing} ({reason}); {advice} (docs/storage.md)") from None


@functools.cache
def _store(scheme: str) -> Any:
    """fsspec's file system of a scheme, without its own memory of listings."""
    package = PACKAGES[scheme]
    for library in LOUD:  # they log what they also raise
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        import fsspec

        return fsspec.filesystem(scheme, use_listings_cache=False)
    except ImportError:
        cure = "pip install 'masktrack-jax[cloud]'"
        raise UserError(f"{scheme}://: needs the package {package}, which is not installed: {cure}") from None


def _of(url: str) -> Any:
    with _reported(url, "opened"):
        return _store(url.partition("://")[0])


def listing(url: str) -> dict[str, Entry]:
    """The names directly below a URL, but those that no local file can have; empty if there are none."""
    store = _of(url)
    with _reported(url, "listed"):
        try:
            found = store.ls(url, detail=True, refresh=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
    base, entries = _path(store, url), {}
    for item in found:
        path = item["name"].rstrip("/")
        name = path.rpartition("/")[2]
        if path.strip("/") != base and _is_name(name):
            entries[name] = _entry(item)
    return entries


def _path(store: Any, url: str) -> str:
    return store._strip_protocol(url).strip("/")


def _entry(item: dict[str, Any]) -> Entry:
    if item["type"] == "directory":
        return Entry(folder=True)
    stated = next((item[name] for name in TIMES if item.get(name)), 0.0)
    if isinstance(stated, str):
        stated = datetime.fromisoformat(stated)
    if isinstance(stated, datetime):
        stated = stated.replace(tzinfo=stated.tzinfo or UTC).timestamp()
    return Entry(False, int(item.get("size") or 0), float(stated))


def entry(url: str) -> Entry | None:
    """What is at a URL, None if there is nothing."""
    with _reported(url, "read"), contextlib.suppress(FileNotFoundError):
        return _entry(_of(url).info(url))
    return None


def tree(url: str) -> dict[str, Entry]:
    """All objects below a URL by their names relative to it, such as `checkpoints/4/digests.json`."""
    store = _of(url)
    with _reported(url, "listed"):
        try:
            found = store.find(url, detail=True, refresh=True)
        except FileNotFoundError:
            return {}
    base = _path(store, url)
    names = {path.strip("/").removeprefix(f"{base}/"): _entry(item) for path, item in found.items()}
    names.pop(base, None)
    return {name: entry for name, entry in names.items() if all(map(_is_name, name.split("/")))}


def _is_name(text: str) -> bool:
    """Whether a part of an object's name can be the name of a local file."""
    return text not in ("", ".", "..") and "\0" not in text


def get(url: str, path: Path) -> None:
    """Copy an object to a local file. Raises a FileNotFoundError if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _reported(url, "read"):
        _of(url).get_file(url, str(path))


def put(path: Path, url: str) -> None:
    """Copy a local file to an object, which readers see once it is complete."""
    with _written(url):
        _of(url).put_file(str(path), url)


def write(url: str, content: bytes, new: bool = False) -> None:
    """Write an object. Raises a FileExistsError if it must be `new` and is not."""
    with _written(url):
        _of(url).pipe_file(url, content, mode="create" if new else "overwrite")


def read(url: str) -> bytes | None:
    """The bytes of an object, None if there is none."""
    with _reported(url, "read"), contextlib.suppress(FileNotFoundError):
        return _of(url).cat_file(url)
    return None


@contextlib.contextmanager
def _written(url: str) -> Iterator[None]:
    with _reported(url, "written"):
        try:
            yield
        except FileNotFoundError as error:  # of the store: the callers know that the local file exists
            if error.filename is not None and os.fspath(error.filename).startswith("/"):
                raise
            raise StoreError(f"{url}: cannot be written (there is no such bucket); create it") from None


def remove(urls: Sequence[str]) -> None:
    """Delete objects; one that does not exist is no error."""

    def delete(url: str) -> None:
        with _reported(url, "deleted"), contextlib.suppress(FileNotFoundError):
            _of(url).rm_file(url)

    at_once(delete, urls)


def at_once(call: Callable[[T], Any], values: Iterable[T]) -> None:
    """Call a function with many values in threads; raises the first exception."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(call, values))


def work(path: str, number: int = 0) -> Path | str:
    """The local folder of a command that writes to a URL; other paths are returned as they are.

    Several processes of a run on one machine have folders of their own, by their `number`.
    """
    return place(path, f"{WORK}-{number}" if number else WORK) if is_url(path) else path


def send(folder: str | Path, last: str = "") -> None:
    """Copy the files in a folder of `work` to its URL, the one named `last` after all others.

    Leaves out folders and hidden files. Does nothing for a folder elsewhere.
    """
    if url := url_of(folder, WORK):
        files = [path for path in Path(folder).iterdir() if path.is_file() and path.name[0] != "."]
        try:
            for group in (False, True):
                at_once(
                    lambda path: put(path, f"{url}/{path.name}"),
                    [path for path in files if (path.name == last) == group],
                )
        except StoreError as error:
            raise StoreError(f"{error}; the files are kept in the folder {WORK} of {root()}") from None


def forget(folder: str | Path) -> None:
    """Delete a folder of `work`; does nothing for a folder elsewhere."""
    if url_of(folder, WORK):
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def outputs(path: str) -> Iterator[str]:
    """Yields the path to write a file to; for a URL, it and what lies beside it are sent at the end."""
    if not is_url(path):
        yield path
        return
    target = Path(work(path, os.getpid()))
    shutil.rmtree(target.parent, ignore_errors=True)  # of a process that had this number before
    try:
        yield str(target)
    except BaseException:
        forget(target.parent)
        raise
    if target.parent.is_dir():
        send(target.parent, last=target.name)
        forget(target.parent)
