"""Runs ended by a signal or a crash: the resumed run equals an uninterrupted one, to the last bit."""

import shutil
import signal
import threading

import pytest

from masktrack_jax.checkpoints.mirror import mirrored
from masktrack_jax.runtime import remote, remote_lock, signals
from masktrack_jax.training import loading
from tests.helpers.stores import BUCKET, memory_store
from tests.helpers.training import assert_same_end, saved_steps, signalled, unchanged


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_first(run, whole, tmp_path, capsys, number, status):
    """In step 5, where neither a checkpoint (every 2 steps) nor a row (every 3) is due."""
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, signalled(5, number))
    assert stopped.value.code == status and saved_steps(tmp_path) == {"2", "4", "5"}
    assert f"{number.name}: step 5 is saved" in capsys.readouterr().out
    assert signal.getsignal(number) is before
    assert_same_end(tmp_path, run(tmp_path), whole)


def test_a_second_signal_ends_at_once(run, tmp_path):
    with pytest.raises(SystemExit):
        run(tmp_path, signalled(3, signal.SIGTERM, times=2))
    assert saved_steps(tmp_path) == {"2"}


def test_a_signal_that_also_ends_the_loader(run, whole, tmp_path, monkeypatch):
    """The step still runs: another loader loads its batch."""
    taken, take = [], loading.Ahead.__next__

    def broken(ahead):
        taken.append(ahead)
        if len(taken) == 3:
            signal.raise_signal(signal.SIGTERM)
            raise BrokenPipeError
        return take(ahead)

    monkeypatch.setattr(signals, "WAIT", 30.0)  # on a busy machine the other loader takes longer to start
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(loading.Ahead, "__next__", broken)
        run(tmp_path)
    assert saved_steps(tmp_path) == {"2", "3"} and len(set(map(id, taken))) == 2
    assert_same_end(tmp_path, run(tmp_path), whole)


def test_training_in_a_thread_handles_no_signals(run, whole, tmp_path):
    ended = []
    thread = threading.Thread(target=lambda: ended.append(run(tmp_path)))
    thread.start()
    thread.join()
    assert_same_end(tmp_path, ended[0], whole)


def test_a_truncated_row_is_written_again(run, whole, tmp_path):
    with pytest.raises(SystemExit):
        run(tmp_path, signalled(4, signal.SIGTERM))
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "los')
    assert_same_end(tmp_path, run(tmp_path), whole)


def test_a_signal_saves_a_run_at_a_url_there(run, whole, tmp_path, monkeypatch, capsys):
    """It resumes on another machine, without the local files."""
    store = memory_store(monkeypatch, tmp_path / "remote")
    monkeypatch.setattr(remote_lock, "SETTLE", 0)

    def at_url(change=unchanged):
        with mirrored(f"{BUCKET}/run", "") as folder:
            state = run(folder, change)
            shutil.copytree(folder, tmp_path / "end")
            return state

    with pytest.raises(SystemExit) as stopped:
        at_url(signalled(5, signal.SIGTERM))
    assert stopped.value.code == 143 and "SIGTERM: step 5 is saved" in capsys.readouterr().out
    assert {f"checkpoints/{step}/digests.json" for step in (2, 4, 5)} <= store.names(f"{BUCKET}/run")
    shutil.rmtree(remote.root())
    assert_same_end(tmp_path / "end", at_url(), whole)
