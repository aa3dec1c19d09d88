"""A lock on a folder, held by one process at a time and released when that process ends, however it ends."""

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from masktrack_jax.runtime.errors import UserError

NAME = ".masktrack-lock"  # the locked file; it stays, and only the operating system's lock on it counts


@contextlib.contextmanager
def folder_lock(folder: str | Path, cure: str) -> Iterator[None]:
    """Lock `folder` for the length of the block; the folder exists and can be written to.

    Raises a UserError that names the process holding the lock and ends with `cure`. On a file system without
    locks (and on Windows) the block runs unlocked, after a line that says so.
    """
    with _open(Path(folder) / NAME) as file:
        try:
            supported = _lock(file)
        except BlockingIOError:
            raise UserError(
                f"{folder}: is in use by {_holder(file)}; wait until it ends, or {cure}"
            ) from None
        if supported:
            _sign(file)
        else:
            print(f"{folder}: its file system has no locks; let no other process write there", flush=True)
        yield


def _open(path: Path) -> IO[bytes]:
    """Open or create the locked file; a link is not followed and a pipe not waited for."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        return os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be opened for locking ({reason}); remove it") from None


def _lock(file: IO[bytes]) -> bool:
    """Lock an open file; False where locks are not supported. Raises BlockingIOError if it is locked."""
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _sign(file: IO[bytes]) -> None:
    """Write this process's number, machine and the time, for the message of `folder_lock`."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    text = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})
    with contextlib.suppress(OSError):  # a full disk: the lock holds without a signature
        file.truncate(file.write(text.encode()))


def _holder(file: IO[bytes]) -> str:
    """The process that signed the locked file, as text."""
    try:
        signed = json.loads(file.read(1000))
        words = f"process {int(signed['pid'])} on {signed['host']} since {signed['since']}"
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return "another process"
    return re.sub(r"[^ -~]", "?", words)[:200]  # anybody may have written the file
