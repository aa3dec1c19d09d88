"""Runs of several processes: connect them, divide batches among them, and exchange values.

Every process runs the same command. Environment variables identify it:

- `MASKTRACK_COORDINATOR`: HOST:PORT, the machine of process 0 and a free port there;
- `MASKTRACK_PROCESSES`: the number of processes; `MASKTRACK_PROCESS`: the index of this one, from 0.

On a cluster that JAX detects (SLURM, Open MPI, TPU) `MASKTRACK_COORDINATOR=auto` is enough.
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.star import Host, Invitation, Star, join

COORDINATOR, PROCESSES, PROCESS = (f"MASKTRACK_{name}" for name in ("COORDINATOR", "PROCESSES", "PROCESS"))
GRACE = 5.0  # seconds that a process has to end by itself after another one has failed
AFTER = 1.0  # seconds that process 0 stays longer: without it, JAX ends the others with a stack trace
LEAVE = 60  # seconds that a process waits at its end for the others
INVITATION = 4096  # bytes
# The name of the devices' axis in a step: JAX would compile it again for a mesh with another name.
AXIS = "data"

T = TypeVar("T")

_star: Star | None = None  # of a run of several processes


@contextlib.contextmanager
def process_group(environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Connect the processes of a run for the length of the block; does nothing for a single process.

    Enter it before JAX is used. If a process fails or is killed, the others end within seconds and print the
    reason, even while they wait for a device. If a machine is lost, they end within two minutes. Only
    process 0 prints to standard output.
    """
    global _star
    if (arguments := _arguments(environment)) is None:
        yield
        return
    _connect(arguments)
    end = _End()
    try:
        _star = _open_star(arguments, end)
        with _quiet_unless_first():
            yield
        _star.leave()
    except BaseException as error:
        if _star:
            _star.report(f"process {jax.process_index()} of {jax.process_count()} failed: {_reason(error)}")
        end.after_loss(error)
        raise
    finally:
        end.over.set()
        _disconnect()
        if _star:
            _star.close()
        _star = None


class _End:
    """Ends this process when another one fails or is lost, unless this one ends before (`over`).

    JAX lets a process leave only together with all others, and aborts it when one of them is missing. So this
    process ends at once (`os._exit`) if another one is lost.
    """

    def __init__(self) -> None:
        self.over, self._lost = threading.Event(), threading.Event()
        self._reason = ""

    def with_others(self, reason: str, lost: int | None) -> None:
        """Another process has failed, or is `lost`. Called in a thread, while this process may be blocked."""
        if lost is not None:
            self._reason = reason
            self._lost.set()
        # Without process 0 JAX ends this one, within a fraction of a second.
        if not self.over.wait(0 if lost == 0 else GRACE):
            if lost is None:
                print(f"error: {reason}", file=sys.stderr, flush=True)
                _disconnect()
                os._exit(1)
            self._exit(1)

    def after_loss(self, error: BaseException) -> None:
        """If a process is lost, end this one, which raises `error`, perhaps for that reason."""
        broken = isinstance(error, jax.errors.JaxRuntimeError)  # devices may notice the loss first
        if self._lost.wait(1.0 if broken else 0.0):
            if isinstance(error, UserError):
                self._reason = str(error)
            self._exit(error.code if isinstance(error, SystemExit) else 1)

    def _exit(self, status: Any) -> None:
        if is_first():  # it takes JAX's service with it: the others end first
            time.sleep(AFTER)
        if status == 1:
            print(f"error: {self._reason}", file=sys.stderr, flush=True)
        os._exit(status if isinstance(status, int) else 1)


@contextlib.contextmanager
def _quiet_unless_first() -> Iterator[None]:
    """Silence standard output on every process but the first."""
    if is_first():
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def _arguments(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """Arguments of `jax.distributed.initialize`; None for a single process. Raises a UserError."""
    address = environment.get(COORDINATOR)
    given = {name: environment[name] for name in (PROCESSES, PROCESS) if environment.get(name)}
    if not address and not given:
        return None
    if address == "auto":
        return {}
    if not address or len(given) < 2 or ":" not in address:
        raise UserError(
            f"set {COORDINATOR}=HOST:PORT, {PROCESSES} and {PROCESS}, or {COORDINATOR}=auto alone"
        )
    if not all(number.isdigit() for number in given.values()):
        raise UserError(f"{given}: not numbers; give the number of processes, and the index of this one")
    count, index = int(given[PROCESSES]), int(given[PROCESS])
    if index >= count:
        raise UserError(f"{PROCESS}={index}: with {PROCESSES}={count} the indices are 0 to {count - 1}")
    return {"coordinator_address": address, "num_processes": count, "process_id": index}


def _connect(arguments: Mapping[str, Any]) -> None:
    """Connect to the other processes, or raise a UserError."""
    # JAX's preemption service would take SIGTERM for itself; see signals.py.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**arguments, shutdown_timeout_seconds=LEAVE)
    except (ValueError, RuntimeError) as error:  # from JAX's cluster detection and its client
        where = arguments.get("coordinator_address", "auto")
        raise UserError(f"{COORDINATOR}={where}: cannot connect ({_first_line(error)})") from None


def _open_star(arguments: Mapping[str, Any], end: _End) -> Star:
    """Connect this process to the others by a `Star`; its address and secret travel through JAX."""
    index, count = jax.process_index(), jax.process_count()
    known = arguments.get("coordinator_address", "").rpartition(":")[0].strip("[]")
    host = Host([known] if known else []) if index == 0 else None
    text = json.dumps(host.invitation if host else "").ljust(INVITATION)
    shared = multihost_utils.broadcast_one_to_all(np.frombuffer(text.encode(), np.uint8))
    if host:
        return Star(host.connections(count), end.with_others)
    invitation = Invitation(*json.loads(shared.tobytes()))
    return Star({0: join(invitation, index)}, end.with_others)


def _disconnect() -> None:
    """Disconnect once all other processes disconnect too or are gone."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # they are gone
        jax.distributed.shutdown()


def _reason(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"exit status {error.code}"
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return f"{kind}{_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:300]


def is_first() -> bool:
    """Whether this is the process that prints and writes."""
    return jax.process_index() == 0


def all_devices() -> list[jax.Device]:
    """The devices of all processes, in the order of the processes."""
    return sorted(jax.devices(), key=lambda device: (device.process_index, device.id))


def devices_text(devices: Sequence[jax.Device] | None = None) -> str:
    """The number and kind of `devices` (default: of all processes), and the number of processes, in words."""
    devices, processes = devices or all_devices(), jax.process_count()
    platform, kind = devices[0].platform, devices[0].device_kind
    name = platform if kind == platform else f"{platform} {kind}"
    plural = "es" * (processes > 1)
    return f"{len(devices)} device{'s' * (len(devices) > 1)} ({name}), {processes} process{plural}"


def local_devices() -> list[jax.Device]:
    """The devices of this process, in the order of `all_devices`."""
    return [device for device in all_devices() if device.process_index == jax.process_index()]


def local_rows(batch_size: int) -> slice:
    """The rows of every global batch that belong to this process's devices."""
    mine = [i for i, device in enumerate(all_devices()) if device.process_index == jax.process_index()]
    rows = batch_size // jax.device_count()
    return slice(mine[0] * rows, (mine[-1] + 1) * rows)


def on_local_devices(tree: T, devices: Sequence[jax.Device] | None = None) -> T:
    """Replicate arrays on `devices` (default: all of this process), as the training step expects them."""
    return jax.device_put(tree, _everywhere(devices or jax.local_devices()))


def split_over(tree: T, devices: Sequence[jax.Device]) -> T:
    """Start to transfer arrays (devices, …) to `devices`, a row to each."""
    return jax.device_put(tree, NamedSharding(_mesh(devices), PartitionSpec(AXIS)))


def as_global(tree: T) -> T:
    """Turn arrays that are equal on all devices of all processes into global arrays, without a copy.

    A training step returns arrays local to each process, which Orbax refuses to write.
    """
    return tree if jax.process_count() == 1 else _over(tree, all_devices())


def as_local(tree: T) -> T:
    """The reverse of `as_global`."""
    return tree if jax.process_count() == 1 else _over(tree, jax.local_devices())


def _over(tree: T, devices: Sequence[jax.Device]) -> T:
    sharding = _everywhere(devices)

    def array(x: jax.Array) -> jax.Array:
        parts = [shard.data for shard in x.addressable_shards]
        return jax.make_array_from_single_device_arrays(x.shape, sharding, parts)

    return jax.tree.map(array, tree)


def _everywhere(devices: Sequence[jax.Device]) -> NamedSharding:
    return NamedSharding(_mesh(devices), PartitionSpec())


def _mesh(devices: Sequence[jax.Device]) -> Mesh:
    return Mesh(np.array(devices), AXIS)


def barrier() -> None:
    """Wait until every process reaches this call."""
    gather(None)
    broadcast(None)


def gather(value: T) -> list[T] | None:
    """Collect the values of all processes, in order, on process 0; the others return None without waiting.

    Values travel as JSON: tuples become lists.
    """
    if jax.process_count() == 1:
        return [value]
    if not is_first():
        _connected().send(0, value)
        return None
    return [value, *(_connected().receive(index) for index in range(1, jax.process_count()))]


def broadcast(value: T) -> T:
    """The `value` of process 0, on every process. It travels as JSON."""
    if jax.process_count() == 1:
        return value
    if not is_first():
        return _connected().receive(0)
    for index in range(1, jax.process_count()):
        _connected().send(index, value)
    return value


def _connected() -> Star:
    assert _star is not None, "several processes communicate within `process_group` only"
    return _star
