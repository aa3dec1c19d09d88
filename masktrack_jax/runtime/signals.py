"""Termination signals, recorded so that a process can save its work before it ends."""

import signal
import threading
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def exit_status(number: int) -> int:
    """The exit status of a process that ends because of the signal `number`."""
    return 128 + number


class Interruption:
    """Context that records SIGTERM (from a scheduler) and SIGINT (Ctrl-C); a second signal ends the process.

    `noted` is the signal that this process received, or None. `signal` is the signal to act on, or None. They
    are equal in a single process. Several processes (`shared`) first agree on one signal (`agree`), so that
    they end at the same step. Both stay None outside the main thread, where Python allows no handlers.
    """

    def __init__(self, shared: bool = False) -> None:
        self.noted: signal.Signals | None = None
        self.signal: signal.Signals | None = None
        self._shared = shared
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def agree(self, number: int) -> None:
        """Act on the signal `number` that some process has received; 0 if none has."""
        if number:
            self.signal = signal.Signals(number)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.noted is not None:
            raise SystemExit(exit_status(number))
        self.noted = signal.Signals(number)
        if not self._shared:
            self.signal = self.noted
