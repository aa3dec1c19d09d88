"""Run the scripts of the repository, each in a fork of one process that has imported JAX already.

A fork behaves as a process of its own: it has its arguments, environment and folder, reads its flags and
initialises JAX's backend. It saves the seconds of CPU time that the imports take.

`python -m tests.helpers.scripts` is that process: each line on its standard input is a `Call` as JSON, each
line on its standard output the exit status.
"""

import importlib
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.helpers.configs import ROOT
from tests.helpers.xla import QUICK_COMPILATION

# On some Intel processors XLA logs an error for every program that it reads from the cache on disk
# (https://github.com/jax-ml/jax/issues/38445), beside the one line of ours.
ENVIRONMENT = {"XLA_FLAGS": QUICK_COMPILATION, "TF_CPP_MIN_LOG_LEVEL": "3"}


class Call(NamedTuple):
    """Path of a script, its arguments and folder, and the files that take its two outputs."""

    script: str
    arguments: list[str]
    folder: str
    stdout: str
    stderr: str


class Outcome(NamedTuple):
    """Exit status, standard output and standard error of a script."""

    status: int
    stdout: str
    stderr: str


class Scripts:
    """Runs scripts in forks of one process; a context manager that ends this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        command = [sys.executable, "-m", "tests.helpers.scripts"]
        environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)}
        self._server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=ROOT, text=True
        )

    def __call__(self, script: str, *arguments: object, cwd: Path = ROOT) -> Outcome:
        """Run a script of the repository and wait for its end."""
        outputs = [self._folder / name for name in ("stdout", "stderr")]
        call = Call(str(ROOT / script), list(map(str, arguments)), str(cwd), *map(str, outputs))
        self._server.stdin.write(json.dumps(call) + "\n")
        self._server.stdin.flush()
        status = os.waitstatus_to_exitcode(int(self._server.stdout.readline()))
        return Outcome(status, *(path.read_text(encoding="utf-8") for path in outputs))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()


def serve() -> Callable[[], object]:
    """Fork for every call. Returns in the forks only, with the script to run."""
    for line in sys.stdin:
        call = Call(*json.loads(line))
        process = os.fork()
        if not process:
            for path, stream in ((call.stdout, 1), (call.stderr, 2)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.chdir(call.folder)
            sys.argv = [call.script, *call.arguments]
            sys.path[0] = str(Path(call.script).parent)
            return lambda: runpy.run_path(call.script, run_name="__main__")
        print(os.waitpid(process, 0)[1], flush=True)
    sys.exit()


if __name__ == "__main__":
    # Nothing of ours: some modules set log levels on import, after absl has read its flags.
    for library in ("cv2", "flax.linen", "optax", "orbax.checkpoint", "scipy.optimize"):
        importlib.import_module(library)
    serve()()
