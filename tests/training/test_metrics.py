"""`metrics.jsonl` with anything in it: rows are kept to the byte, other lines are left out and counted."""

import json

import pytest

from masktrack_jax.runtime.errors import UserError
from masktrack_jax.training import metrics

ROWS = [b'{"step": 2, "loss": 1.5}\n', b'{"step": 4, "loss": NaN}\n', b'{"step": 6}\n']
STRANGE = [
    b"[1, 2]\n",
    b"3\n",
    b"null\n",
    b'{"loss": 1}\n',
    b'{"step": "4"}\n',
    b'{"step": true}\n',
    b'{"step": 2.0}\n',
    b'{"step": -1}\n',
    b'{"step": 1e400}\n',
    b'{"step": ' + b"1" * 5000 + b"}\n",
    b"[" * 100_000 + b"\n",
    "é\n".encode("latin-1"),
    "step\n".encode("utf-16"),
    bytes(range(256)) + b"\n",
    b"\n",
    b'{"step": 2, "x": "' + b"x" * 3 * 2**20 + b'"}\n',
]


def test_rows_are_kept_and_other_lines_counted(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"".join([*ROWS[:1], *STRANGE, *ROWS[1:], b'{"step": 4, "los']))
    metrics.drop_rows_after(path, 4)
    assert path.read_bytes() == b"".join(ROWS[:2]) and metrics.last_step(path) == 4
    # The binary line holds a line break itself.
    assert (
        capsys.readouterr().out
        == f"{path}: {len(STRANGE) + 1} lines that are no rows of metrics are left out\n"
    )
    metrics.drop_rows_after(path, 4)
    assert path.read_bytes() == b"".join(ROWS[:2]) and not capsys.readouterr().out


def test_a_last_row_without_line_break_is_kept(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(ROWS[0] + ROWS[1].rstrip())
    metrics.drop_rows_after(path, 9)
    assert path.read_bytes() == ROWS[0] + ROWS[1] and not capsys.readouterr().out


def test_no_file_is_no_rows_and_a_folder_is_refused(tmp_path):
    assert metrics.last_step(tmp_path / "none") == 0
    metrics.drop_rows_after(tmp_path / "none", 3)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="is no file; remove it"):
        metrics.drop_rows_after(tmp_path, 3)


def test_rows_written_are_rows(tmp_path):
    line = json.dumps({"step": 3, "loss": None, "frames_per_second": 1.0}).encode()
    assert metrics.step_of(line) == 3
