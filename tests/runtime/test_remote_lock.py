"""One run at a URL: a second one is refused, a dead one replaced, and one that was cut off ends."""

import json
import os
import subprocess
import threading

import pytest

from masktrack_jax.runtime import remote, remote_lock
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.remote_lock import LockLost, RemoteLock
from tests.helpers.stores import BUCKET, memory_store

OBJECT = f"{BUCKET}/run/{remote_lock.NAME}"


@pytest.fixture(autouse=True)
def store(monkeypatch, tmp_path):
    for name, seconds in {"BEAT": 0.02, "SILENCE": 0.3, "SETTLE": 0.01, "LOOK": 0.01}.items():
        monkeypatch.setattr(remote_lock, name, seconds)
    return memory_store(monkeypatch, tmp_path)


def lock():
    return RemoteLock(f"{BUCKET}/run", "use another --workdir")


def test_a_second_run_is_told_of_the_first_one_and_comes_after_it(capsys):
    with lock():
        with pytest.raises(UserError) as caught, lock():
            pass
        assert str(caught.value).startswith(f"{BUCKET}/run: is in use by process {os.getpid()} on ")
        assert str(caught.value).endswith("; wait until it ends, or use another --workdir")
        assert "is locked by process" in capsys.readouterr().out
    assert remote.read(OBJECT) is None
    with lock():
        pass


def test_of_two_at_once_one_runs():
    outcomes = []

    def run():
        try:
            with lock() as held:
                start.wait(1)
                outcomes.append(held)
                over.wait()
        except UserError as error:
            outcomes.append(error)

    start, over = threading.Barrier(1), threading.Event()
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(outcomes) < 4:
        over.wait(0.01)
    over.set()
    for thread in threads:
        thread.join()
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["RemoteLock"] + ["UserError"] * 3


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"token": 1}', b'{"pid": "x", "machine": 3}'])
def test_a_silent_lock_is_taken_over(content):
    remote.write(OBJECT, content)
    with lock() as held:
        held.check()
        assert json.loads(remote.read(OBJECT))["pid"] == os.getpid()


def test_the_lock_of_a_dead_process_of_this_machine_is_taken_over_at_once(monkeypatch, capsys):
    monkeypatch.setattr(remote_lock, "SILENCE", 1000)
    with subprocess.Popen(["true"]) as gone:
        pass
    remote.write(OBJECT, json.dumps(remote_lock._who() | {"pid": gone.pid, "token": "x"}).encode())
    with lock():
        assert capsys.readouterr().out == ""


def test_a_run_that_was_cut_off_is_told_that_another_one_goes_on():
    with lock() as held:
        remote.write(OBJECT, json.dumps({"pid": 7, "host": "other", "since": "noon", "token": "x"}).encode())
        held._beating.join(5)
        with pytest.raises(LockLost, match="is now in use by process 7 on other since noon"):
            held.check()
    assert b"other" in remote.read(OBJECT)


def test_a_store_that_does_not_answer_does_not_end_the_run(store):
    with lock() as held:
        store.before = lambda *_: (_ for _ in ()).throw(ConnectionError("gone"))
        held._over.wait(0.1)
        held.check()
        store.before = lambda *_: None
