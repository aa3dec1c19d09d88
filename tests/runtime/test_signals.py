"""Signals are recorded, and a second one ends the process; the tests send real signals."""

import os
import signal
import threading

import pytest

from masktrack_jax.runtime.signals import Interruption, exit_status


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
