"""Randomly changed state of a lock: another process is named in one line, whatever the file holds."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masktrack_jax.runtime.lock import NAME, folder_lock
from tests.helpers.mutations import VALUES, changed, cut_or_flipped, refused_or

SIGNED = {"pid": 4711, "host": "machine", "since": "2026-01-01 12:00:00"}
CONTENTS = (
    (changed(SIGNED) | VALUES).map(lambda value: json.dumps(value).encode())
    | cut_or_flipped(json.dumps(SIGNED).encode())
    | st.binary(max_size=50)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lock")


@given(CONTENTS)
def test_signatures_of_locks(folder, content):
    (folder / NAME).write_bytes(content)
    with folder_lock(folder, ""):
        (folder / NAME).write_bytes(content)
        refusals = []

        def second(path):
            with folder_lock(path, "use another"):
                refusals.append("taken twice")

        assert refused_or(second, folder) is None and not refusals
