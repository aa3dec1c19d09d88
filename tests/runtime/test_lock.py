"""A folder has one writer: the second is told of the first, whose end releases the lock."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys

import pytest

from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.lock import NAME, folder_lock
from tests.helpers.configs import ROOT

HOLD = """
import sys, time
from masktrack_jax.runtime.lock import folder_lock
with folder_lock(sys.argv[1], "use another --workdir"):
    print("held", flush=True)
    time.sleep(60)
"""


def refusal(folder):
    with pytest.raises(UserError) as caught, folder_lock(folder, "use another --workdir"):
        pass
    text = str(caught.value)
    assert text.startswith(str(folder)) and "\n" not in text
    return text


def test_the_second_process_is_told_of_the_first_and_a_killed_one_releases(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as first:
        assert first.stdout.readline() == "held\n"
        text = refusal(tmp_path)
        assert f"is in use by process {first.pid} on {socket.gethostname()} since 20" in text
        assert text.endswith("; wait until it ends, or use another --workdir")
        first.send_signal(signal.SIGKILL)
    with folder_lock(tmp_path, ""):
        assert f"process {os.getpid()} " in refusal(tmp_path)
    with folder_lock(tmp_path, ""):
        pass


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[1]", b'{"pid": "x"}', b'{"pid": 1}' + bytes(5000)])
def test_a_stale_file_is_no_obstacle_and_another_signature_no_traceback(tmp_path, content):
    (tmp_path / NAME).write_bytes(content)
    with folder_lock(tmp_path, ""):
        (tmp_path / NAME).write_bytes(content)
        assert "is in use by another process; wait" in refusal(tmp_path)


def test_a_link_folder_or_pipe_in_its_place_is_refused_or_used(tmp_path):
    target = tmp_path / "target"
    target.write_text("kept")
    (tmp_path / NAME).symlink_to(target)
    assert f"{NAME}: cannot be opened for locking" in refusal(tmp_path)
    assert target.read_text() == "kept"
    (tmp_path / NAME).unlink()
    (tmp_path / NAME).mkdir()
    assert f"{NAME}: cannot be opened for locking" in refusal(tmp_path)
    (tmp_path / NAME).rmdir()
    os.mkfifo(tmp_path / NAME)
    with folder_lock(tmp_path, ""):
        pass


def test_a_file_system_without_locks_is_said(tmp_path, capsys, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with folder_lock(tmp_path, ""):
        assert capsys.readouterr().out.startswith(f"{tmp_path}: its file system has no locks")
