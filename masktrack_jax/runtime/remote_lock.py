"""A lock on a URL: an object that says who writes there, renewed while its process lives.

Stores have no locks that end with a process. So the object is created on the condition that there is none,
and its holder counts in it every `BEAT` seconds. Whoever finds one that stays the same for `SILENCE`
seconds, or whose process was on this machine and is gone, takes it over. A holder that finds the sign of
another in it, since it was cut off for so long, is told so and ends.
"""

import contextlib
import hashlib
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Self

from masktrack_jax.runtime import remote
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.lock import NAME

BEAT, SILENCE = 10.0, 45.0  # seconds
SETTLE = 1.0  # seconds in which two processes that took the lock at once both see who has it
PATIENCE = 5.0  # seconds for the release
LOOK = 1.0  # seconds between looks at the lock of another process


class LockLost(UserError):
    """Another process writes to the URL."""


class RemoteLock:
    """Context that holds the lock of `url`.

    Raises a UserError that ends with `cure` if another process has it.
    """

    def __init__(self, url: str, cure: str) -> None:
        self.url, self._cure, self._object = url, cure, f"{url}/{NAME}"
        self._sign = {**_who(), "token": uuid.uuid4().hex}
        self._beats, self._over, self._other = 0, threading.Event(), ""
        self._beating = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        self._acquire()
        self._beating.start()
        return self

    def __exit__(self, *_: object) -> None:
        releasing = threading.Thread(target=self._release, daemon=True)
        releasing.start()
        releasing.join(PATIENCE)  # a store that does not answer

    def _release(self) -> None:
        self._over.set()
        self._beating.join()
        with contextlib.suppress(UserError):  # another run takes it over after `SILENCE` seconds
            if not self._other and self._read().get("token") == self._sign["token"]:
                remote.remove([self._object])

    def check(self) -> None:
        """Raise a `LockLost` if another process has taken the lock."""
        if self._other:
            raise LockLost(
                f"{self.url}: is now in use by {self._other}, since this process gave no sign for "
                f"{SILENCE:.0f} seconds; the run goes on there"
            )

    def _content(self) -> bytes:
        self._beats += 1
        return json.dumps(self._sign | {"beats": self._beats}).encode()

    def _read(self) -> dict[str, Any]:
        """The sign in the object; empty if there is no object, with a token of its own if it is another's."""
        if (content := remote.read(self._object)) is None:
            return {}
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(content)
            if isinstance(found, dict) and "token" in found:
                return found
        return {"token": hashlib.sha256(content).hexdigest()}

    def _acquire(self) -> None:
        since, seen, told = time.monotonic(), None, False
        while (found := self._read()).get("token") != self._sign["token"]:
            if not found:
                with contextlib.suppress(FileExistsError):
                    remote.write(self._object, self._content(), new=True)
                    time.sleep(SETTLE)
                continue
            if seen and found != seen and found.get("token") == seen.get("token"):
                raise UserError(
                    f"{self.url}: is in use by {_words(found)}; wait until it ends, or {self._cure}"
                )
            if found != seen:
                since, seen = time.monotonic(), found
            if _is_gone(found) or time.monotonic() - since > SILENCE:
                remote.remove([self._object])
                continue
            if not told:
                print(
                    f"{self.url}: is locked by {_words(found)}; waiting {SILENCE:.0f} s at most for its sign"
                )
                told = True
            time.sleep(LOOK)

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            with contextlib.suppress(
                UserError
            ):  # the store does not answer: no other process can write either
                found = self._read()
                if found and found.get("token") != self._sign["token"]:
                    self._other = _words(found)
                    return
                remote.write(self._object, self._content())


def _who() -> dict[str, Any]:
    """This process, its machine, and what tells whether it still runs."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "machine": _machine()}


def _machine() -> str:
    """Identifies this start of this machine, and its space of process numbers; empty if it is unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _is_gone(sign: dict[str, Any]) -> bool:
    """Whether the process of a sign was on this machine, and runs no more."""
    number = sign.get("pid")
    if not sign.get("machine") or sign["machine"] != _machine() or type(number) is not int:
        return False
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        return False
    return False


def _words(sign: dict[str, Any]) -> str:
    return f"process {sign.get('pid')} on {sign.get('host')} since {sign.get('since')}"[:200]
