"""Randomly changed weights files: each is read in little memory, or rejected with one line."""

import json
import struct

import pytest
from hypothesis import example, given

from masktrack_jax.checkpoints.metadata import Metadata
from masktrack_jax.config.base import base_config
from masktrack_jax.interop import files as weights
from masktrack_jax.runtime.errors import UserError
from tests.helpers.mutations import changed, cut_or_flipped, refused_or


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def safetensors():
    header = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
    header |= {"b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]}}
    description = Metadata(base_config(), [(1, "a"), (4, "b")], 3).to_json()
    header |= {"__metadata__": {weights.OURS: json.dumps(description)}}
    return header


def safetensors_bytes(header):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(32)


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3", "F6_E3M2", "C64"])
def test_types_without_a_reader(folder, kind):
    """NumPy has no type for them, or the network none."""
    header = {"a": {"dtype": kind, "shape": [8], "data_offsets": [0, {"F4": 4, "C64": 64}.get(kind, 8)]}}
    header["a"]["data_offsets"][1] = 6 if kind.startswith("F6") else header["a"]["data_offsets"][1]
    text = json.dumps(header).encode()
    path = folder / "Odd.SafeTensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(header["a"]["data_offsets"][1]))
    with pytest.raises(UserError) as error:
        weights.read(path)
    assert str(error.value) == f"{path}: a is of type {kind}; convert it to F32 or BF16 where it was made"


@given(changed(safetensors()).map(safetensors_bytes) | cut_or_flipped(safetensors_bytes(safetensors())))
@example(struct.pack("<Q", 2**62) + b"{}")
@example(safetensors_bytes({"a": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 32]}}))
def test_safetensors(folder, content):
    path = folder / "weights.safetensors"
    path.write_bytes(content)
    found = refused_or(weights.read, path)
    if found is not None:
        assert sum(x.nbytes for x in found.tensors.values()) <= len(content)
