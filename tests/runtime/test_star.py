"""Messages among three processes, here threads, of which each has its own end of a star of connections."""

import math
import socket
import threading
import time

import pytest

from masktrack_jax.runtime import star
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.star import Host, Star, join


class Group:
    """Three connected processes; `failures` are (process that hears of it, reason, lost)."""

    def __init__(self):
        self.failures, self.heard = [], threading.Condition()
        host = Host()
        lines = {}
        joining = [
            threading.Thread(target=lambda i=i: lines.update({i: join(host.invitation, i)})) for i in (2, 1)
        ]
        for thread in joining:
            thread.start()
        ends = host.connections(3)
        for thread in joining:
            thread.join()
        self.stars = [Star(ends, self.note(0)), *(Star({0: lines[i]}, self.note(i)) for i in (1, 2))]

    def note(self, index):
        def failed(reason, lost):
            with self.heard:
                self.failures.append((index, reason, lost))
                self.heard.notify_all()

        return failed

    def wait(self, count):
        with self.heard:
            assert self.heard.wait_for(lambda: len(self.failures) >= count, 10)
        return sorted(self.failures)


@pytest.fixture
def group():
    group = Group()
    yield group
    for each in group.stars:
        each.leave()
        each.close()


def test_values_arrive_in_their_order_without_waiting(group):
    """Both ways; megabytes that nobody receives yet do not hold up the sender."""
    zero, one, two = group.stars
    large = "x" * 20_000_000
    for value in (None, [1.5, {"a": "é"}], large):
        one.send(0, value)
        two.send(0, [value])
    assert [zero.receive(2) for _ in range(3)] == [[None], [[1.5, {"a": "é"}]], [large]]
    assert [zero.receive(1) for _ in range(3)] == [None, [1.5, {"a": "é"}], large]
    zero.send(1, float("nan"))
    assert math.isnan(one.receive(0)) and not group.failures


def test_a_failure_reaches_all_others(group):
    group.stars[1].report("frame.jpg: broken")
    assert group.wait(2) == [(0, "frame.jpg: broken", None), (2, "frame.jpg: broken", None)]
    group.stars[1].close()
    group.stars[0].report("stopped")
    assert group.wait(3)[-1] == (2, "stopped", None)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_is_noticed(group, killed):
    """The system closes the connections of a killed process."""
    group.stars[killed].close()  # without `leave`
    failures = group.wait(2)
    assert [index for index, _, _ in failures] == [i for i in range(3) if i != killed]
    assert all(
        reason.startswith(f"process {killed} is lost") and lost == killed for _, reason, lost in failures
    )


def test_the_end_of_a_process_is_no_failure(group):
    for each in reversed(group.stars):
        each.leave()
        each.close()
    time.sleep(0.1)
    assert not group.failures


def test_only_a_process_of_the_run_joins(monkeypatch):
    """Others know no secret, say nothing, or have an index that is none or taken."""
    monkeypatch.setattr(star, "ANSWER", 0.2)
    host = Host()
    address = ("localhost", host.invitation.port)
    stranger = socket.create_connection(address)
    nonsense = socket.create_connection(address)
    nonsense.sendall(bytes(68))
    monkeypatch.setattr(star, "JOIN", 0.5)
    wrong = host.invitation._replace(secret="00" * 32)
    ended = []

    def refused(invitation, index):
        with pytest.raises(UserError, match=r"^process 0 does not answer at .*, port \d+; allow"):
            join(invitation, index)
        ended.append(index)

    threads = [threading.Thread(target=refused, args=(wrong, 1))]
    threads += [threading.Thread(target=lambda: join(host.invitation, 7))]
    for thread in threads:
        thread.start()
    with pytest.raises(UserError, match=r"^process 1 of 3 does not connect to process 0 \(port \d+\); allow"):
        host.connections(3)
    for thread in threads:
        thread.join()
    assert ended == [1]
    stranger.close()
    nonsense.close()
