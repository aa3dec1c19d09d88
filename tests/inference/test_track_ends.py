"""`track.py` ends soon after a signal, and with a line where a source never answers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.helpers.configs import ROOT

OPENING = """
import os
from masktrack_jax.runtime import cli
from masktrack_jax.video.live import open_source

def main(_):
    print("opening", flush=True)
    open_source(os.environ["SOURCE"], limit=float(os.environ["LIMIT"]))

cli.launch(main)
"""


def opening(source: Path, limit: float) -> "subprocess.Popen[str]":
    """A process that opens a source as track.py does."""
    command = [sys.executable, "-c", OPENING]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SOURCE": str(source), "LIMIT": str(limit)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, env=environment, text=True, **pipes)
    assert process.stdout is not None and process.stdout.readline() == "opening\n"
    return process


def test_ctrl_c_ends_the_opening_of_a_silent_source(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    process = opening(tmp_path / "pipe", 1000)
    time.sleep(0.2)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and not said
    assert time.monotonic() - begun < 3 + 2, "two seconds for a busy machine"


def test_a_silent_source_is_given_up_with_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    process = opening(tmp_path / "pipe", 0.5)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1 and said.count("\n") == 1
    assert said.startswith(f"error: {tmp_path}/pipe: no answer for 0.5 s; check")
