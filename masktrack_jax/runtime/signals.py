"""Termination signals: a process saves its work before it ends, and always ends soon.

`Interruption` records a signal for the code that saves. `watch` ends the process if that code does not: a few
seconds after a signal unless there is something to save, and at once after a second signal.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)
WAIT = 0.5  # seconds that `Interruption.wait` lasts after a signal
LIMIT = 2.5  # seconds from a signal to the end of a watched process that has nothing to save
AFTERWARDS = 0.5  # seconds from the end of saving to the end of the process
TOGETHER = 20.0  # the same for one of several processes, which end together
POLL = 0.05


def exit_status(number: int) -> int:
    """The exit status of a process that ends because of the signal `number`."""
    return 128 + number


class Stalled(BaseException):
    """A wait took too long; no `except Exception` on the way catches it."""


class Interruption:
    """Context that records SIGTERM (from a scheduler) and SIGINT (Ctrl-C); a second signal ends the process.

    `noted` is the signal that this process received, or None. `signal` is the signal to act on, or None. They
    are equal in a single process. Several processes (`shared`) first agree on one signal (`agree`), so that
    they end at the same step. Both stay None outside the main thread, where Python allows no handlers.

    `unsaved()` describes work that is still to be saved, for a line to the user; empty if there is none. A
    watched process (see `watch`) has time until it is empty.
    """

    def __init__(self, shared: bool = False, unsaved: Callable[[], str] = str) -> None:
        self.noted: signal.Signals | None = None
        self.signal: signal.Signals | None = None
        self.unsaved = unsaved
        self.shared = shared
        self._before: dict[signal.Signals, Any] = {}
        self._waiting = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
            _entered.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before:
            _entered.remove(self)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def agree(self, number: int) -> None:
        """Act on the signal `number` that some process has received; 0 if none has."""
        if number:
            self.signal = signal.Signals(number)

    @contextlib.contextmanager
    def wait(self, seconds: float) -> Iterator[None]:
        """Limit the time that the main thread waits in the block.

        Raises `Stalled` in the block after `seconds`, or soon after a signal. Does nothing in other threads.
        """
        if not self._before or not hasattr(signal, "setitimer"):
            yield
            return
        before = signal.signal(signal.SIGALRM, self._stall)
        self._waiting = True
        signal.setitimer(signal.ITIMER_REAL, seconds)
        if self.noted:  # only now: a signal may have arrived just before
            signal.setitimer(signal.ITIMER_REAL, WAIT)
        try:
            yield
        finally:
            self._waiting = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.noted is not None:
            raise SystemExit(exit_status(number))
        self.noted = signal.Signals(number)
        if not self.shared:
            self.signal = self.noted
        if self._waiting:
            signal.setitimer(signal.ITIMER_REAL, WAIT)

    def _stall(self, *_: object) -> None:
        if self._waiting:
            raise Stalled


_entered: list[Interruption] = []
_watched: list[socket.socket] = []  # both ends of the pair that carries the numbers of signals


def watch() -> None:
    """End this process soon after a signal, even if its main thread never runs Python again.

    The main thread may be compiling, or wait for a dead disk. Call this in the main thread.
    """
    if not _watched:
        _watched.extend(socket.socketpair())
        _watched[1].setblocking(False)
        signal.set_wakeup_fd(_watched[1].fileno(), warn_on_full_buffer=False)
        threading.Thread(target=_end_after_signal, args=(_watched[0],), daemon=True).start()


def end_soon(status: int) -> None:
    """End a watched process with `status` within `LIMIT` seconds, although threads of it may hang."""

    def end() -> None:
        time.sleep(LIMIT)
        _leave(status)

    if _watched:
        threading.Thread(target=end, daemon=True).start()


def _end_after_signal(numbers: socket.socket) -> None:
    """The body of the watching thread."""
    first = _receive(numbers)
    # Not in this thread: `unsaved` may look at a disk that does not answer.
    threading.Thread(target=lambda: _leave(exit_status(_receive(numbers))), daemon=True).start()
    name, told = signal.Signals(first).name, False
    shared = any(entered.shared for entered in _entered)
    end = time.monotonic() + (TOGETHER if shared else LIMIT)
    while time.monotonic() < end:
        time.sleep(POLL)
        if unsaved := "; ".join(filter(None, (entered.unsaved() for entered in _entered))):
            if not told:
                _say(f"{name}: {unsaved}; a second signal ends at once")
            told, end = True, time.monotonic() + (TOGETHER if shared else AFTERWARDS)
    if not told:
        _say(f"{name}: ended; there was nothing to save")
    _leave(exit_status(first))


def _receive(numbers: socket.socket) -> int:
    """Wait for the next termination signal, and return its number."""
    while (number := numbers.recv(1)[0]) not in SIGNALS:
        pass
    return number


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())  # the main thread may hold the lock of sys.stderr


def _leave(status: int) -> None:
    flushing = threading.Thread(target=sys.stdout.flush, daemon=True)
    flushing.start()
    flushing.join(0.2)
    os._exit(status)
