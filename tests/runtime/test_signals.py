"""Signals are recorded, and a second one ends the process; the tests send real signals."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from masktrack_jax.runtime import signals
from masktrack_jax.runtime.signals import Interruption, Stalled, exit_status
from tests.helpers.configs import ROOT


def test_a_signal_is_noted_and_a_second_one_ends():
    before = signal.getsignal(signal.SIGTERM)
    with Interruption() as interruption:
        assert interruption.signal is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.signal == interruption.noted == signal.SIGTERM
        with pytest.raises(SystemExit) as ended:
            os.kill(os.getpid(), signal.SIGINT)
        assert ended.value.code == exit_status(signal.SIGINT) == 130
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_shared_block_ends_when_all_agree():
    with Interruption(shared=True) as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.noted == signal.SIGTERM and interruption.signal is None
        interruption.agree(0)
        assert interruption.signal is None
        interruption.agree(signal.SIGTERM)
        assert interruption.signal == signal.SIGTERM


def test_nothing_is_noted_outside_the_main_thread():
    found = []

    def enter():
        with Interruption() as interruption:
            found.append(interruption.signal)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [None]


def test_a_wait_ends_in_time_and_soon_after_a_signal(monkeypatch):
    monkeypatch.setattr(signals, "WAIT", 0.05)
    with Interruption() as interruption:
        with interruption.wait(60):
            pass
        with pytest.raises(Stalled), interruption.wait(0.05):
            threading.Event().wait(60)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stalled), interruption.wait(60):
            threading.Event().wait(60)
        time.sleep(0.1)  # no alarm is left
    with Interruption() as interruption, pytest.raises(Stalled), interruption.wait(60):
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(60)


# A program whose main thread never runs Python again, as while JAX compiles. Its work is saved some seconds
# after the signal; 0: there is none; below 0: its disk never tells.
DEAF = """
import ctypes, signal, sys, time
from masktrack_jax.runtime import signals
saving, signals.LIMIT = float(sys.argv[1]), 0.5
signals.watch()
signal.pthread_sigmask(signal.SIG_BLOCK, signals.SIGNALS)  # they interrupt another thread
until = []
def unsaved():
    time.sleep(1000 if saving < 0 else 0)
    until.append(time.monotonic() + saving)
    return "step 3 is being saved" if time.monotonic() < until[0] else ""
with signals.Interruption(unsaved=unsaved):
    print("ready", flush=True)
    while True:
        ctypes.CDLL(None).sleep(1000)
"""


def deaf(saving, *numbers):
    """The exit status of the program, the seconds from the last of the signals, and its lines."""
    command = [sys.executable, "-c", DEAF, str(saving)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, cwd=ROOT) as process:
        assert process.stdout.readline() == "ready\n"
        for number in numbers:
            time.sleep(0.2)
            process.send_signal(number)
        started = time.monotonic()
        status = process.wait(20)
        return status, time.monotonic() - started, process.stderr.read()


def test_a_deaf_process_ends_after_a_signal():
    status, seconds, lines = deaf(0, signal.SIGTERM)
    assert status == 143 and seconds < 1.5 and signals.LIMIT < 3
    assert lines == "SIGTERM: ended; there was nothing to save\n"


def test_a_process_that_saves_has_time_and_a_second_signal_ends_it_at_once():
    status, seconds, lines = deaf(1, signal.SIGINT)
    assert status == 130 and 1 < seconds < 3
    assert lines == "SIGINT: step 3 is being saved; a second signal ends at once\n"
    status, seconds, _ = deaf(60, signal.SIGINT, signal.SIGTERM)
    assert status == 143 and seconds < 1


def test_a_second_signal_ends_a_process_whose_disk_does_not_answer():
    status, seconds, _ = deaf(-1, signal.SIGTERM, signal.SIGINT)
    assert status == 130 and seconds < 1
