"""Compiled programs: keep them for the next process, and show that one is compiled."""

import contextlib
import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from tqdm import tqdm

from masktrack_jax.runtime.cache import FOLDER, SHORTEST, check_cache, keep_programs

# Events of `jax.monitoring`, in the thread that compiles: a program was read from the cache on disk, and a
# program is compiled or read.
FOUND, DONE = "/jax/compilation_cache/cache_hits", "/jax/core/compile/backend_compile_duration"

USUAL = 1.0  # seconds: JAX's own SHORTEST


@functools.cache  # one warning is enough
def keep_programs_of_library() -> None:
    """`keep_programs` for a process that has imported JAX already.

    Changes nothing that the process has set itself, in JAX's config or in its environment.
    """
    config: Any = jax.config
    environment = dict(os.environ)
    keep_programs(environment)
    if FOLDER in os.environ or config.jax_compilation_cache_dir is not None or FOLDER not in environment:
        return
    check_cache(environment)
    if folder := environment.get(FOLDER):
        config.update(FOLDER.lower(), folder)
        if SHORTEST not in os.environ and config.jax_persistent_cache_min_compile_time_secs == USUAL:
            config.update(SHORTEST.lower(), float(environment[SHORTEST]))


class Announced:
    """Calls a jitted `function`, and shows its compilation for each new description `describe(*arguments)`.

    Threads may share it. If several compile the same program for their devices, the first one shows it.
    """

    def __init__(self, function: Callable[..., Any], describe: Callable[..., str]) -> None:
        self._function, self._describe = function, describe
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, *arguments: Any) -> Any:
        description = self._describe(*arguments)
        with self._lock:
            new = description not in self._known
            self._known.add(description)
        with compilation(description) if new else contextlib.nullcontext():
            return self._function(*arguments)


@contextlib.contextmanager
def compilation(description: str) -> Iterator[None]:
    """Show a line before the block, which compiles a program, and a line with the time after it.

    Process 0 writes the lines to standard error, past a progress bar. The time ends with a ready program:
    it contains tracing, but not the first run of the program.
    """
    started, thread = time.perf_counter(), threading.get_ident()
    ended, longest, found, cached = started, -1.0, False, False

    def count(event: str, **_: object) -> None:
        nonlocal found
        found |= event == FOUND and threading.get_ident() == thread

    def measure(event: str, duration_secs: float, **_: object) -> None:
        nonlocal ended, longest, found, cached
        if event == DONE and threading.get_ident() == thread:
            ended = time.perf_counter()
            if duration_secs > longest:  # other programs, for constants, take less
                longest, cached = duration_secs, found
            found = False

    _say(f"compiling {description} …")
    jax.monitoring.register_event_listener(count)
    jax.monitoring.register_event_duration_secs_listener(measure)
    try:
        yield
    finally:
        jax.monitoring.unregister_event_listener(count)
        jax.monitoring.unregister_event_duration_listener(measure)
    seconds = (ended if longest >= 0 else time.perf_counter()) - started
    how = "ready" if longest < 0 else "from the cache" if cached else "compiled"
    _say(f"{description}: {how} in {seconds:.{0 if seconds >= 10 else 1}f} s")


def _say(line: str) -> None:
    if jax.process_index() == 0:
        tqdm.write(line, file=sys.stderr)
        sys.stderr.flush()
