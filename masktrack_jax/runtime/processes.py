"""Several processes as one run: how they find each other, what each takes, what they tell each other.

Every process runs the same command, and its environment says which one it is:

- `MASKTRACK_COORDINATOR`: HOST:PORT, the machine of process 0 and a free port there;
- `MASKTRACK_PROCESSES`: how many there are; `MASKTRACK_PROCESS`: the number of this one, from 0.

On a cluster that JAX knows (SLURM, Open MPI, TPU) `MASKTRACK_COORDINATOR=auto` is enough.
"""

import contextlib
import itertools
import os
import pickle
import sys
import threading

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from masktrack_jax.runtime.errors import UserError

COORDINATOR, PROCESSES, PROCESS = (f"MASKTRACK_{name}" for name in ("COORDINATOR", "PROCESSES", "PROCESS"))
ENDED = "masktrack/ended/"  # below it, what processes that broke off said last
POLL, GRACE = 1.0, 5.0  # seconds between two looks at that; and to end by oneself
LEAVE = 60  # seconds that a process which ends waits for the others to
FOREVER = 7 * 24 * 3600 * 1000  # milliseconds; a process that is gone is noticed otherwise

_numbers = itertools.count()  # all processes ask for the same things in the same order


@contextlib.contextmanager
def together(environment=os.environ):
    """A block that the processes of a run do together; this one alone where the environment names no others.

    To be entered before JAX is used. Where one of them breaks off, the others end with what it said; where
    one is lost without a word, JAX ends them within two minutes. Only process 0 prints to standard output.
    """
    if (asked := _asked(environment)) is None:
        yield
        return
    _connect(asked)
    over = threading.Event()
    watch = threading.Thread(target=_end_with_others, args=(over,), daemon=True)
    watch.start()
    try:
        with _spoken():
            yield
    except BaseException as error:
        _tell(f"process {jax.process_index()} of {jax.process_count()} broke off: {_reason(error)}")
        raise
    finally:
        over.set()
        watch.join()
        _disconnect()


@contextlib.contextmanager
def _spoken():
    """What is said by all is heard once."""
    if is_first():
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def _asked(environment):
    """Arguments of `jax.distributed.initialize`, or None. Raises a UserError for what makes no sense."""
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
        raise UserError(f"{given}: not numbers; give how many processes there are, and which this is, from 0")
    count, index = int(given[PROCESSES]), int(given[PROCESS])
    if index >= count:
        raise UserError(f"{PROCESS}={index}: with {PROCESSES}={count} they are 0 to {count - 1}")
    return {"coordinator_address": address, "num_processes": count, "process_id": index}


def _connect(asked):
    """Meet the other processes, or raise a UserError."""
    jax.config.update(
        "jax_enable_preemption_service", False
    )  # would take SIGTERM for itself, see interruption
    try:
        jax.distributed.initialize(**asked, shutdown_timeout_seconds=LEAVE)
    except (ValueError, RuntimeError) as error:  # of JAX's clusters and of its client
        where = asked.get("coordinator_address", "auto")
        raise UserError(
            f"{COORDINATOR}={where}: the processes did not come together ({_first_line(error)})"
        ) from None


def _tell(reason):
    """Let the others know why this process ends."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # process 0 is gone: they know
        _client().key_value_set(f"{ENDED}{jax.process_index()}", reason)


def _disconnect():
    """Leave when all others do, too, or are gone."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # they are not there any more
        jax.distributed.shutdown()


def _end_with_others(over):
    """Wait until one process breaks off, and end this one, whatever it waits for; or until it is `over`."""
    while not over.wait(POLL):
        try:
            said = _client().key_value_dir_get(ENDED)
        except jax.errors.JaxRuntimeError:
            return  # process 0 is gone: JAX ends this one
        if said and not over.wait(GRACE):
            print(f"error: {said[0][1]}", file=sys.stderr, flush=True)
            _disconnect()
            os._exit(1)


def _reason(error):
    if isinstance(error, SystemExit):
        return f"exit status {error.code}"
    return (
        _first_line(error)
        if isinstance(error, UserError)
        else f"{type(error).__name__}: {_first_line(error)}"
    )


def _first_line(error):
    return str(error).strip().split("\n")[0][:300]


def _client():
    from jax._src import distributed  # there is no public way to what JAX's own tools use

    return distributed.global_state.client


def is_first():
    """Whether this is the process that prints and writes."""
    return jax.process_index() == 0


def all_devices():
    """The devices of all processes, those of process 0 first."""
    return sorted(jax.devices(), key=lambda device: (device.process_index, device.id))


def local_rows(batch_size):
    """The rows of every batch, of `batch_size`, that this process's devices take: a slice."""
    mine = [i for i, device in enumerate(all_devices()) if device.process_index == jax.process_index()]
    rows = batch_size // jax.device_count()
    return slice(mine[0] * rows, (mine[-1] + 1) * rows)


def on_local_devices(tree):
    """Copies of arrays on each device of this process, as the training step takes its state."""
    return jax.device_put(tree, _everywhere(jax.local_devices()))


def as_global(tree):
    """Arrays that are the same on all devices of all processes, as one array each; nothing is copied.

    A step leaves each process arrays of its own, which Orbax refuses to write.
    """
    return tree if jax.process_count() == 1 else _over(tree, all_devices())


def as_local(tree):
    """The reverse of `as_global`."""
    return tree if jax.process_count() == 1 else _over(tree, jax.local_devices())


def _over(tree, devices):
    sharding = _everywhere(devices)

    def array(x):
        parts = [shard.data for shard in x.addressable_shards]
        return jax.make_array_from_single_device_arrays(x.shape, sharding, parts)

    return jax.tree.map(array, tree)


def _everywhere(devices):
    return NamedSharding(Mesh(np.array(devices), "devices"), PartitionSpec())


def meet():
    """Wait until every process is here."""
    if jax.process_count() > 1:
        _client().wait_at_barrier(f"masktrack/{next(_numbers)}", FOREVER)


def gather(value):
    """[value of process 0, of process 1, …] in process 0; None in the others, which do not wait."""
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


def from_first(value):
    """The `value` of process 0, in every process."""
    if jax.process_count() == 1:
        return value
    name = f"masktrack/{next(_numbers)}"
    if is_first():
        _client().key_value_set_bytes(name, pickle.dumps(value))
        return value
    return pickle.loads(_client().blocking_key_value_get_bytes(name, FOREVER))
