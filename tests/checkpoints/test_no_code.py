"""A checkpoint names handlers, types and keys of arrays: none is imported, and none leaves its folder."""

import json
import shutil
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masktrack_jax.checkpoints.metadata import Metadata, read_metadata
from masktrack_jax.checkpoints.store import load_matching, read_variables, write_variables
from masktrack_jax.config.base import base_config
from masktrack_jax.runtime.errors import UserError
from tests.helpers.mutations import changed

VARIABLES = {"params": {"a": {"w": np.arange(12, dtype=np.float32)}, "b": np.ones(5, np.float32)}}
NAMES = ("_CHECKPOINT_METADATA", "variables/_METADATA")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("no code") / "checkpoint"
    write_variables(folder, VARIABLES, Metadata(base_config(), [(1, "a")], 3))
    return folder


def read(folder):
    """The variables by both readers, or None if the folder is refused in one line that names it."""
    try:
        read_metadata(folder)
        load_matching(folder, VARIABLES, [(1, "a")], ())
        return read_variables(folder, VARIABLES)
    except UserError as error:
        assert "\n" not in str(error) and str(folder) in str(error), error
        return None


def named_everywhere(value):
    """A JSON value with the name of a module instead of every text."""
    if isinstance(value, dict):
        return {key: named_everywhere(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [named_everywhere(inner) for inner in value]
    return "named_by_the_checkpoint.Handler" if isinstance(value, str) else value


@pytest.mark.parametrize("name", NAMES)
def test_no_class_of_a_checkpoint_is_imported(whole, tmp_path, monkeypatch, name):
    folder = shutil.copytree(whole, tmp_path / "checkpoint")
    (folder / "named_by_the_checkpoint.py").write_text("raise SystemExit('code of the checkpoint ran')")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(folder)
    path = folder / name
    path.write_text(json.dumps(named_everywhere(json.loads(path.read_text()))))
    read(folder)
    assert "named_by_the_checkpoint" not in sys.modules


def test_keys_do_not_leave_the_checkpoint(whole, tmp_path):
    """Arrays as folders, one of them outside."""
    folder, path = shutil.copytree(whole, tmp_path / "checkpoint"), "../../../outside"
    file = folder / "variables" / "_METADATA"
    text = file.read_text().replace('"use_ocdbt": true', '"use_ocdbt": false')
    file.write_text(text.replace("'b'", f"'{path}'").replace('"b"', f'"{path}"'))
    assert read(folder) is None


@settings(max_examples=settings.default.max_examples // 8)  # each copies a checkpoint
@given(data=st.data())
def test_fuzz(whole, tmp_path_factory, data):
    """Changes of a JSON file: the variables as they were, or one line."""
    folder = tmp_path_factory.mktemp("fuzz") / "checkpoint"
    shutil.copytree(whole, folder)
    path = folder / data.draw(st.sampled_from(NAMES))
    path.write_text(json.dumps(data.draw(changed(json.loads(path.read_text())))))
    if found := read(folder):
        np.testing.assert_array_equal(found["params"]["a"]["w"], VARIABLES["params"]["a"]["w"])
        np.testing.assert_array_equal(found["params"]["b"], VARIABLES["params"]["b"])
    shutil.rmtree(folder)
