"""Scalars for TensorBoard, read back with its protocol; a full disk ends the board and not the run."""

import errno
import struct

from tensorboardX.proto.event_pb2 import Event

from masktrack_jax.training.board import Board


def events(folder):
    (path,) = folder.iterdir()
    content, found = path.read_bytes(), []
    while content:
        (size,) = struct.unpack("Q", content[:8])
        found.append(Event.FromString(content[12 : 12 + size]))
        content = content[16 + size :]
    return found


def test_scalars_are_written_at_once(tmp_path):
    board = Board(tmp_path / "board", 5)
    board.add(6, {"train/loss": 1.5, "train/rate": 0.25})
    _, version, start, *scalars = events(tmp_path / "board")
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (5, 1)
    found = [
        (event.step, event.summary.value[0].tag, event.summary.value[0].simple_value) for event in scalars
    ]
    assert found == [(6, "train/loss", 1.5), (6, "train/rate", 0.25)]
    board.close()


def test_a_full_disk_is_said_once(tmp_path, capsys, monkeypatch):
    board = Board(tmp_path / "board", 1)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(board._writer), "flush", full)
    for step in range(3):
        board.add(step, {"train/loss": 1.0})
    board.close()
    line = f"{tmp_path}/board: cannot be written (No space left on device); training continues without it\n"
    assert capsys.readouterr().out == line
    (tmp_path / "file").touch()
    Board(tmp_path / "file" / "board", 1).close()
    assert "training continues without it" in capsys.readouterr().out
