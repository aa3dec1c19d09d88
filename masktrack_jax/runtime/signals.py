"""Signals that ask a process to end, noted so that it can save its work first."""

import signal
import threading
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def exit_status(number: int) -> int:
    """The exit status of a process that ends because of the signal `number`."""
    return 128 + number


class Interruption:
    """A block that notes SIGTERM (from a scheduler) and SIGINT (Ctrl-C); a second signal ends it at once.

    `noted` is the signal this process received, or None; `signal` is the signal to end for, or None. They
    are equal unless several processes share the block (`shared`). Then `signal` is the one that all of them
    agree on (`agree`), so that they end at the same step. Both stay None outside the main thread, where
    Python allows no handlers.
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
        """End for the signal `number`, which some process has noted; 0 if none has."""
        if number:
            self.signal = signal.Signals(number)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.noted is not None:
            raise SystemExit(exit_status(number))
        self.noted = signal.Signals(number)
        if not self._shared:
            self.signal = self.noted
