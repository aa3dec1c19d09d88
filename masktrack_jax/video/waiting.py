"""Wait for work that may block for ever: a daemon thread does it, and its caller stops waiting at a limit."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from masktrack_jax.runtime.errors import UserError

T = TypeVar("T")
LIMIT = 30.0  # seconds without a frame, unless --timeout sets another number
POLL = 0.1  # seconds between two checks for a signal while waiting


class Handover(Generic[T]):
    """The items of an iterable, taken by a daemon thread that holds one item at a time.

    The thread is a daemon because a read from a hung disk or a silent source may never return.

    Args:
      items: read, and closed if it is a generator, by the thread alone. It may block.
      name: of the thread.
      drop: replace a held item that was not taken by the next one. Otherwise the thread waits for that.
    Attributes:
      dropped: the number of items that were replaced.
      error: what `items` raised, if it failed.
    """

    def __init__(self, items: Iterable[T], name: str, drop: bool = False) -> None:
        self.drop, self.dropped = drop, 0
        self.error: Exception | None = None
        self._held: tuple[int, T] | None = None
        self._ended = False
        self._changed = threading.Condition()
        threading.Thread(target=self._read, args=(items,), name=name, daemon=True).start()

    def peek(self, limit: float, stopped: Callable[[], bool] = lambda: False) -> tuple[int, T] | None:
        """Wait for the next item; return it with its number, which counts from 0 and includes dropped ones.

        Returns None at the end of the items, or when `stopped()` is true and no item is held. Raises a
        TimeoutError after `limit` seconds.
        """
        end = time.monotonic() + limit
        with self._changed:
            while self._held is None and not self._ended and not stopped():
                if time.monotonic() > end:
                    raise TimeoutError
                self._changed.wait(POLL)
            return self._held

    def take(self, limit: float, stopped: Callable[[], bool] = lambda: False) -> tuple[int, T] | None:
        """Like `peek`, and make room for another item."""
        with self._changed:  # reentrant: the item is still the same
            taken = self.peek(limit, stopped)
            self._held = None
            self._changed.notify_all()
        return taken

    def close(self) -> None:
        """Let the thread end at the next item."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _read(self, items: Iterable[T]) -> None:
        """The body of the thread."""
        try:
            for number, item in enumerate(items):
                if not self._put(number, item):
                    return
        except Exception as error:
            self.error = error
        finally:
            if isinstance(items, Iterator) and hasattr(items, "close"):
                items.close()
            self.close()

    def _put(self, number: int, item: T) -> bool:
        """Hold an item, after waiting for or dropping the held one; False if reading has stopped."""
        with self._changed:
            while self._held is not None and not self.drop and not self._ended:
                self._changed.wait()
            if self._ended:
                return False
            self.dropped += self._held is not None
            self._held = number, item
            self._changed.notify_all()
        return True


def within(limit: float, name: str, items: Iterable[T]) -> Iterator[T]:
    """Iterate over `items` in a daemon thread; raises a UserError if one takes more than `limit` seconds."""
    handover = Handover(items, name)
    try:
        while (taken := handover.take(limit)) is not None:
            yield taken[1]
    except TimeoutError:
        raise silent(name, limit) from None
    finally:
        handover.close()
    if handover.error is not None:
        raise handover.error


def answer(limit: float, name: str, work: Callable[[], T]) -> T:
    """Return `work()`, called in a daemon thread; raises a UserError after `limit` seconds."""
    return next(within(limit, name, (work() for _ in range(1))))


def silent(name: str, limit: float) -> UserError:
    """The error about a source that gave nothing for `limit` seconds."""
    return UserError(
        f"{name}: no answer for {limit:g} s; check that it can be read, or give a larger --timeout"
    )
