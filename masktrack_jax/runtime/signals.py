"""Signals that ask a process to end: what is done is saved first."""

import signal
import threading

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def exit_status(number):
    """The exit status of a process that ends for the signal `number`."""
    return 128 + number


class Interruption:
    """A block in which SIGTERM (of a scheduler) and SIGINT (Ctrl-C) are noted; a second one ends at once.

    `noted` is the one that came, or None; `signal` is the one to end for. These are the same, but where the
    block is `shared` by several processes: there `signal` is what they have agreed upon (`agree`), so that
    all of them end at the same place. Outside of the main thread, where Python allows no handlers, both stay
    None.
    """

    def __init__(self, shared=False):
        self.noted, self.signal, self._shared, self._before = None, None, shared, {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def agree(self, number):
        """End for the signal `number`, which some process has noted; 0 where none has."""
        if number:
            self.signal = signal.Signals(number)

    def _note(self, number, _):
        if self.noted is not None:
            raise SystemExit(exit_status(number))
        self.noted = signal.Signals(number)
        if not self._shared:
            self.signal = self.noted
