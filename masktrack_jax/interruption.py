"""Signals that ask a process to end: what is done is saved first."""

import signal
import threading

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """A block in which SIGTERM (of a scheduler) and SIGINT (Ctrl-C) are noted; a second one ends at once.

    `signal` is the one that came, or None. Outside of the main thread, where Python allows no handlers, it
    stays None.
    """

    def __init__(self):
        self.signal, self._before = None, {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def status(self):
        """The exit status of a process that ends for this signal."""
        return 128 + self.signal

    def _note(self, number, _):
        if self.signal is not None:
            raise SystemExit(self.status)
        self.signal = signal.Signals(number)
