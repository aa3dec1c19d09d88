"""The loader's processes: they end with the process that started them, and leave no shared memory behind."""

import contextlib
import functools
import multiprocessing
import os
import re
import sys
import threading
from multiprocessing import process, shared_memory
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import grain

SHARED_MEMORY = Path("/dev/shm")  # where Linux keeps it; elsewhere nothing is removed
NAME = re.compile(r"(?:sem\.)?masktrack-(\w+)-(\d{1,9})-")  # nine digits: `os.kill` takes no larger number
PATIENCE = 3.0  # seconds for a loader process to end
LARGE = 2**16  # bytes from which an array is handed over in shared memory instead of a pipe


def in_processes(batches: "grain.IterDataset", workers: int) -> "grain.IterDataset":
    """`batches`, loaded in their order by a number of processes; the arrays may be in shared memory."""
    import grain

    remove_leftovers()
    # For the processes started below: one of them removes the shared memory of killed ones, and warns of it.
    sys.warnoptions.append("ignore:resource_tracker:UserWarning")
    this: Any = process.current_process()
    this._config["semprefix"] = f"/{_prefix(os.getpid())}".rstrip("-")
    options = grain.experimental.DatasetOptions(min_shm_size=LARGE)
    batches = grain.experimental.WithOptionsIterDataset(batches, options)
    count = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
    return batches.mp_prefetch(count, functools.partial(_start, os.getpid()))


def _start(parent: int, *_: int) -> None:
    """Prepare a loader process: name its shared memory, and end it when its parent has ended."""
    names: Any = shared_memory  # Python has no public way to choose them
    names._SHM_NAME_PREFIX = f"/{_prefix(parent)}"
    names._SHM_SAFE_NAME_LENGTH = len(names._SHM_NAME_PREFIX) + 16
    follow_parent()


def follow_parent() -> None:
    """End this process as soon as its parent has ended."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A killed parent cannot ask its processes to end. Python's resource tracker, which outlives it, then
    # removes the shared memory.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _prefix(number: int) -> str:
    """The start of the names of a process's shared memory: its space of process numbers, and its number."""
    return f"masktrack-{_process_space()}-{number}-"


def _process_space() -> str:
    """Identifies the container, whose processes have numbers of their own, although they may share memory."""
    with contextlib.suppress(OSError):
        return f"{os.stat('/proc/self/ns/pid').st_ino:x}"
    return "0"


def remove_leftovers() -> None:
    """Remove the shared memory of earlier runs whose processes were all killed at once."""
    for path in SHARED_MEMORY.glob("*masktrack-*"):
        found = NAME.match(path.name)
        if found and found[1] == _process_space() and not _runs(int(found[2])):
            with contextlib.suppress(OSError):
                path.unlink()


def _runs(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def close(batches: Any, at_once: bool = False) -> None:
    """Close an iterator of batches. Processes that do not end in time are killed; threads are left."""
    closing = threading.Thread(target=batches.close, daemon=True)
    closing.start()
    closing.join(PATIENCE / 10 if at_once else PATIENCE)
    if closing.is_alive():
        for child in multiprocessing.active_children():
            if child.name.startswith("grain-process-prefetch"):
                child.kill()
        closing.join(PATIENCE / 10)
