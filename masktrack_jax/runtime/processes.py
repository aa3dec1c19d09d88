"""Runs of several processes: connect them, divide batches among them, and exchange values.

Every process runs the same command. Environment variables identify it:

- `MASKTRACK_COORDINATOR`: HOST:PORT, the machine of process 0 and a free port there;
- `MASKTRACK_PROCESSES`: the number of processes; `MASKTRACK_PROCESS`: the index of this one, from 0.

On a cluster that JAX detects (SLURM, Open MPI, TPU) `MASKTRACK_COORDINATOR=auto` is enough.
"""

import contextlib
import itertools
import os
import pickle
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from masktrack_jax.runtime.errors import UserError

COORDINATOR, PROCESSES, PROCESS = (f"MASKTRACK_{name}" for name in ("COORDINATOR", "PROCESSES", "PROCESS"))
FAILED = "masktrack/failed/"  # prefix of the keys under which failing processes leave their reason
POLL, GRACE = 1.0, 5.0  # seconds between reads of these keys; seconds a process has to end by itself
LEAVE = 60  # seconds that a process waits at its end for the others
FOREVER = 7 * 24 * 3600 * 1000  # milliseconds; lost processes are detected by other means

T = TypeVar("T")

_numbers = itertools.count()  # of barriers and messages; all processes count them in the same order


@contextlib.contextmanager
def process_group(environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Connect the processes of a run for the length of the block; does nothing for a single process.

    Enter it before JAX is used. If a process fails, the others end and print its error. If a process is lost
    without an error, JAX ends the others within two minutes. Only process 0 prints to standard output.
    """
    if (arguments := _arguments(environment)) is None:
        yield
        return
    _connect(arguments)
    over = threading.Event()
    watch = threading.Thread(target=_end_with_others, args=(over,), daemon=True)
    watch.start()
    try:
        with _quiet_unless_first():
            yield
    except BaseException as error:
        _report(f"process {jax.process_index()} of {jax.process_count()} failed: {_reason(error)}")
        raise
    finally:
        over.set()
        watch.join()
        _disconnect()


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


def _report(reason: str) -> None:
    """Send the other processes the reason why this one ends."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # process 0 is gone: the others know
        _client().key_value_set(f"{FAILED}{jax.process_index()}", reason)


def _disconnect() -> None:
    """Disconnect once all other processes disconnect too or are gone."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # they are gone
        jax.distributed.shutdown()


def _end_with_others(over: threading.Event) -> None:
    """End this process when another one fails, even if this one is blocked; return once `over` is set."""
    while not over.wait(POLL):
        try:
            reasons = _client().key_value_dir_get(FAILED)
        except jax.errors.JaxRuntimeError:
            return  # process 0 is gone: JAX ends this one
        if reasons and not over.wait(GRACE):
            print(f"error: {reasons[0][1]}", file=sys.stderr, flush=True)
            _disconnect()
            os._exit(1)


def _reason(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"exit status {error.code}"
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return f"{kind}{_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:300]


def _client() -> Any:
    from jax._src import distributed  # JAX has no public interface to its key-value store

    return distributed.global_state.client


def is_first() -> bool:
    """Whether this is the process that prints and writes."""
    return jax.process_index() == 0


def all_devices() -> list[jax.Device]:
    """The devices of all processes, in the order of the processes."""
    return sorted(jax.devices(), key=lambda device: (device.process_index, device.id))


def local_rows(batch_size: int) -> slice:
    """The rows of every global batch that belong to this process's devices."""
    mine = [i for i, device in enumerate(all_devices()) if device.process_index == jax.process_index()]
    rows = batch_size // jax.device_count()
    return slice(mine[0] * rows, (mine[-1] + 1) * rows)


def on_local_devices(tree: T, devices: Sequence[jax.Device] | None = None) -> T:
    """Replicate arrays on `devices` (default: all of this process), as the training step expects them."""
    return jax.device_put(tree, _everywhere(devices or jax.local_devices()))


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
    # The name of the axis in training.step; JAX would compile the step again for a mesh with another name.
    return NamedSharding(Mesh(np.array(devices), "data"), PartitionSpec())


def barrier() -> None:
    """Wait until every process reaches this call."""
    if jax.process_count() > 1:
        _client().wait_at_barrier(f"masktrack/{next(_numbers)}", FOREVER)


def gather(value: T) -> list[T] | None:
    """Collect the values of all processes, in order, on process 0; the others return None without waiting."""
    if jax.process_count() == 1:
        return [value]
    name = f"masktrack/{next(_numbers)}"
    if not is_first():
        _client().key_value_set_bytes(f"{name}/{jax.process_index()}", pickle.dumps(value))
        return None
    values = [value]
    for index in range(1, jax.process_count()):
        values.append(pickle.loads(_client().blocking_key_value_get_bytes(f"{name}/{index}", FOREVER)))
        _client().key_value_delete(f"{name}/{index}")
    return values


def broadcast(value: T) -> T:
    """The `value` of process 0, on every process."""
    if jax.process_count() == 1:
        return value
    name = f"masktrack/{next(_numbers)}"
    if is_first():
        _client().key_value_set_bytes(name, pickle.dumps(value))
        return value
    return pickle.loads(_client().blocking_key_value_get_bytes(name, FOREVER))
