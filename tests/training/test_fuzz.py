"""Randomly changed metrics: rows are kept to the byte, whatever the other lines hold."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masktrack_jax.training.metrics import drop_rows_after, last_step
from tests.helpers.mutations import VALUES, changed, cut_or_flipped

ROW = {"step": 3, "loss": 1.5, "accuracy": None, "skipped_steps": 0}
LINES = (
    changed(ROW).map(lambda row: json.dumps(row).encode())
    | VALUES.map(lambda value: json.dumps({"step": value}).encode())
    | cut_or_flipped(json.dumps(ROW).encode())
    | st.binary(max_size=40)
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("metrics") / "metrics.jsonl"


def is_row(line):
    """Whether a line is a JSON object with a whole number of steps up to 3; a second reading of the rule."""
    try:
        step = json.loads(line)["step"]
        return isinstance(step, int) and not isinstance(step, bool) and 0 <= step <= 3
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return False


@given(st.lists(LINES, max_size=5))
def test_rows_of_metrics(path, lines):
    content = b"\n".join(lines)
    path.write_bytes(content)
    drop_rows_after(path, 3)
    wanted = [line.rstrip(b"\r") for line in content.split(b"\n") if is_row(line)]
    assert path.read_bytes() == b"".join(line + b"\n" for line in wanted)
    assert last_step(path) == max((json.loads(line)["step"] for line in wanted), default=0)
