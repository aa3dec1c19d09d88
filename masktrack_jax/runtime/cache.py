"""JAX's compilation cache on disk: a second start compiles nothing again."""

import os
import sys
import zlib
from collections.abc import MutableMapping
from pathlib import Path

from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import make_folder, whole

FOLDER, SHORTEST = "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
PROBE = 2**20  # bytes that the folder must have room for


def keep_programs(environment: MutableMapping[str, str] = os.environ) -> None:
    """Enable JAX's compilation cache on disk, so that a second start compiles nothing again.

    `MASKTRACK_CACHE` sets its folder, by default masktrack_jax in the user's cache folder; "off" disables it.
    JAX's own `JAX_COMPILATION_CACHE_DIR` takes precedence. Call this before JAX is imported.
    """
    usual = Path(environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "masktrack_jax"
    folder = environment.get("MASKTRACK_CACHE") or str(usual)
    if folder != "off" and FOLDER not in environment:
        environment[FOLDER] = str(Path(folder).expanduser() / _machine())
        environment.setdefault(SHORTEST, "0.2")


def check_cache(environment: MutableMapping[str, str] = os.environ) -> None:
    """Disable the compilation cache, after one line, if its folder cannot be written to."""
    folder = environment.get(FOLDER, "")
    if not folder or "://" in folder:
        return
    probe = Path(folder) / f".probe-{os.getpid()}"
    try:
        make_folder(folder)
        with whole(probe) as partial:  # a full disk has room for an empty file
            partial.write_bytes(bytes(PROBE))
        probe.unlink(missing_ok=True)  # a process of another machine may have the same name for it
    except UserError as error:
        reason = str(error).rpartition(";")[0].replace(str(probe), folder)
        del environment[FOLDER]
        environment["MASKTRACK_CACHE"] = "off"
        print(f"{reason}; every start compiles anew: set MASKTRACK_CACHE to another folder", file=sys.stderr)


def _machine() -> str:
    """A name for this type of processor: a program in a shared home folder may not run on another type."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "any"
    kind = [line for line in lines if line.startswith(("model name", "flags", "Features"))][:2]
    return f"{zlib.crc32(''.join(kind).encode()):08x}"
