"""Messages among the processes of a run: a star of TCP connections with process 0 in the middle.

They travel beside the devices' own communication, so they arrive while a process waits for a device. Messages
are JSON: nothing that is received is ever executed. Only a process that knows the secret of the run can join.
"""

import contextlib
import hmac
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple

from masktrack_jax.runtime.errors import UserError

JOIN = 60.0  # seconds until all processes are connected
ANSWER = 5.0  # seconds in which the other end answers while it connects
NONCE = 32  # bytes of a random number, and of a proof
# Seconds between signs of life on a silent connection, and how many may be missing: firewalls forget silent
# connections, and a machine without power says nothing.
ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}

Failed = Callable[[str, int | None], None]


class Invitation(NamedTuple):
    """What the others need to connect to process 0: names and addresses to try, a port, and the secret."""

    hosts: list[str]
    port: int
    secret: str


class Star:
    """This process's connections: to all others in process 0, to process 0 in the others.

    Values from one process arrive in the order in which they were sent. `failed(reason, lost)` is called in a
    thread when another process reports a failure, or when the connection to a process breaks before it has
    left; `lost` is then its index, and otherwise None. Process 0 first passes this on to the others.
    """

    def __init__(self, lines: Mapping[int, socket.socket], failed: Failed) -> None:
        self._lines, self._failed = lines, failed
        self._values: dict[int, SimpleQueue[Any]] = {index: SimpleQueue() for index in lines}
        self._writing = {index: threading.Lock() for index in lines}
        self._closed = False
        for index in lines:
            threading.Thread(target=self._listen, args=(index,), daemon=True).start()

    def send(self, index: int, value: object) -> None:
        """Send a value of JSON to a process. Does not wait until it is received."""
        self._write(index, {"value": value})

    def receive(self, index: int) -> Any:
        """Wait for the next value from a process."""
        return self._values[index].get()

    def report(self, reason: str) -> None:
        """Tell the other processes why this one has failed."""
        for index in self._lines:
            self._write(index, {"failed": reason, "lost": None})

    def leave(self) -> None:
        """Tell the other processes that this one ends as it should."""
        for index in self._lines:
            self._write(index, {"left": True})

    def close(self) -> None:
        """Close the connections."""
        self._closed = True
        for line in self._lines.values():
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()

    def _write(self, index: int, message: Mapping[str, object]) -> None:
        data = json.dumps(message).encode()
        with self._writing[index], contextlib.suppress(OSError):  # `_listen` notices that the line is broken
            self._lines[index].sendall(len(data).to_bytes(8, "big") + data)

    def _listen(self, index: int) -> None:
        """Receive what a process sends. The body of a thread."""
        told = False  # whether the process has left or reported its failure
        with contextlib.suppress(OSError, ValueError):  # ValueError: not JSON
            while True:
                length = int.from_bytes(_exactly(self._lines[index], 8), "big")
                message = json.loads(_exactly(self._lines[index], length))
                if "value" in message:
                    self._values[index].put(message["value"])
                    continue
                told = True
                if "failed" in message:
                    self._fail(index, message["failed"], message["lost"])
        if not (told or self._closed):
            self._fail(
                index, f"process {index} is lost: it was killed, or its machine does not answer", index
            )

    def _fail(self, index: int, reason: str, lost: int | None) -> None:
        for other in self._lines:
            if other != index:
                self._write(other, {"failed": reason, "lost": lost})
        self._failed(reason, lost)


class Host:
    """Process 0 before the others are connected: listens on a free port."""

    def __init__(self, hosts: Sequence[str] = ()) -> None:
        """`hosts`: names of this machine that the others know already."""
        self._server = _server()
        port = self._server.getsockname()[1]
        names = list(dict.fromkeys([*hosts, *_own_names()]))
        self.invitation = Invitation(names, port, secrets.token_hex(NONCE))

    def connections(self, count: int) -> dict[int, socket.socket]:
        """Wait for the `count` - 1 other processes. Raises a UserError after `JOIN` seconds."""
        lines: dict[int, socket.socket] = {}
        end = time.monotonic() + JOIN
        with self._server:
            while missing := set(range(1, count)) - lines.keys():
                self._server.settimeout(max(end - time.monotonic(), 0.001))
                try:
                    line, _ = self._server.accept()
                except TimeoutError:
                    raise UserError(
                        f"process {min(missing)} of {count} does not connect to process 0 (port "
                        f"{self.invitation.port}); allow connections among the machines of the run"
                    ) from None
                index = _admit(line, self.invitation.secret)
                if index in missing:
                    lines[index] = line
                else:
                    line.close()
        return lines


def join(invitation: Invitation, index: int) -> socket.socket:
    """Connect process `index` to process 0. Raises a UserError after `JOIN` seconds."""
    end = time.monotonic() + JOIN
    while time.monotonic() < end:
        for host in invitation.hosts:
            with contextlib.suppress(OSError):
                line = socket.create_connection((host, invitation.port), timeout=ANSWER)
                if _introduce(line, invitation.secret, index):
                    return line
                line.close()
        time.sleep(0.2)
    raise UserError(
        f"process 0 does not answer at {', '.join(invitation.hosts)}, port {invitation.port}; allow "
        "connections among the machines of the run"
    )


def _server() -> socket.socket:
    """Listen on a free port, by both versions of IP where the system has both."""
    with contextlib.suppress(OSError, ValueError):
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def _own_names() -> list[str]:
    """Names and addresses under which other machines, or this one, may reach this machine."""
    name = socket.gethostname()
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # an address of documentation (RFC 5737); nothing is sent
        return [name, probe.getsockname()[0], "localhost"]
    return [name, "localhost"]


def _admit(line: socket.socket, secret: str) -> int | None:
    """Check that the process that has just connected knows the secret; returns its index."""
    with contextlib.suppress(OSError):
        line.settimeout(ANSWER)
        mine = secrets.token_bytes(NONCE)
        line.sendall(mine)
        index, theirs, proof = (_exactly(line, size) for size in (4, NONCE, NONCE))
        if hmac.compare_digest(proof, _proof(secret, b"join", index, mine, theirs)):
            line.sendall(_proof(secret, b"welcome", theirs))
            _settle(line)
            return int.from_bytes(index, "big")
    return None


def _introduce(line: socket.socket, secret: str, index: int) -> bool:
    """The other side of `_admit`; whether the other end knows the secret too."""
    mine, place = secrets.token_bytes(NONCE), index.to_bytes(4, "big")
    theirs = _exactly(line, NONCE)
    line.sendall(place + mine + _proof(secret, b"join", place, theirs, mine))
    welcome = _exactly(line, NONCE)
    _settle(line)
    return hmac.compare_digest(welcome, _proof(secret, b"welcome", mine))


def _proof(secret: str, *parts: bytes) -> bytes:
    return hmac.digest(bytes.fromhex(secret), b"".join(parts), "sha256")


def _settle(line: socket.socket) -> None:
    """Wait without a limit from now on, but notice a machine that is gone."""
    line.settimeout(None)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in ALIVE.items():
        if hasattr(socket, name):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _exactly(line: socket.socket, size: int) -> bytes:
    """The next `size` bytes. Raises a ConnectionError if the connection ends before."""
    data = bytearray(size)
    left = memoryview(data)
    while left:
        if not (count := line.recv_into(left)):
            raise ConnectionError
        left = left[count:]
    return bytes(data)
