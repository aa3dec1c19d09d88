"""Work that never ends is given up after a limit; a thread of it ends as soon as it can."""

import threading
import time

import pytest

from masktrack_jax.runtime.errors import UserError
from masktrack_jax.video.waiting import answer, within


def never():
    threading.Event().wait()


def test_items_come_in_order_and_errors_behind_them():
    def items():
        yield from range(5)
        raise UserError("read error")

    taken = []
    with pytest.raises(UserError, match="read error"):
        taken.extend(within(10, "disk", items())) or taken.extend(within(10, "disk", items()))
    assert list(within(10, "disk", iter(range(1000)))) == list(range(1000))
    assert list(within(10, "disk", [])) == []
    assert answer(10, "disk", lambda: None) is None


def test_what_never_answers_is_given_up():
    def items():
        yield 1
        never()

    for work in (lambda: list(within(0.2, "disk", items())), lambda: answer(0.2, "disk", never)):
        begun = time.monotonic()
        with pytest.raises(UserError, match=r"^disk: no answer for 0\.2 s; check .* larger --timeout$"):
            work()
        assert time.monotonic() - begun < 5


def test_the_limit_is_for_each_item():
    def items():
        for number in range(4):
            time.sleep(0.1)
            yield number

    assert list(within(0.35, "slow disk", items())) == [0, 1, 2, 3]


def test_the_thread_ends_with_its_reader():
    """And closes what it reads, in the same thread."""
    closed = []

    def items():
        try:
            yield from range(10**9)
        finally:
            closed.append(threading.current_thread().name)

    before = set(threading.enumerate())
    reading = within(10, "a disk", items())
    assert next(reading) == 0
    (thread,) = set(threading.enumerate()) - before
    reading.close()
    thread.join(10)
    assert closed == ["a disk"] and not thread.is_alive() and thread.daemon
