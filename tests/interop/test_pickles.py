"""Pickles of detectron2 are read without running code: the oracle is the dict that was pickled."""

import collections
import gzip
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from masktrack_jax.interop import files
from masktrack_jax.interop.pickles import read_arrays
from masktrack_jax.runtime.errors import UserError
from tests.helpers.mutations import cut_or_flipped, refused_or

ARRAYS = {
    "stem.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "columns": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    "big": np.arange(3, dtype=">f4"),
    "half": np.float16([0.5, -2]),
    "count": np.array(7),
    "none": np.zeros((0, 3), np.float32),
}
CONTENT = {"model": ARRAYS, "__author__": "Detectron2 Model Zoo", "matching_heuristics": True}


@pytest.mark.parametrize("protocol", range(5))
def test_every_protocol(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "model_final.PKL"
    path.write_bytes(pickle.dumps(CONTENT, protocol))
    tensors = files.read(path).tensors
    assert tensors.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert tensors[name].dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(tensors[name], array)


def test_text_of_python_2() -> None:
    """Old files of Caffe2 hold an array's bytes as text."""
    old = b"(dp0\nS'w'\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    old += b"(I1\n(I2\ntcnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI0\n"
    old += b"S'\\x00\\x00\\x80?\\x00\\x00\\x00\\xc0'\ntbs."
    np.testing.assert_array_equal(read_arrays(old)["w"], np.float32([1, -2]))


class Trap:
    """A pickle that creates a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(5))
def test_code_is_not_run(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"model": ARRAYS, "x": Trap(tmp_path / "sprung")}, protocol))
    with pytest.raises(UserError) as error:
        files.read(path)
    assert "names posix.mkdir" in str(error.value) and "nothing was run" in str(error.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "content",
    [
        collections.OrderedDict(a=1),
        [1],
        {"w": np.array([object()])},
        {"w": np.zeros(2, [("a", "f4")])},
        {"w": np.array(["a"])},
        {"w": np.zeros(2, "c8")},
        {"w": print},
        {"model": {"w": np.dtype("f4")}},
        {"w": np.float32(1)},
        {},
    ],
)
def test_other_content(tmp_path: Path, content: object) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=r"model\.pkl: holds (more than|no) pickled arrays"):
        files.read(path)


@pytest.mark.parametrize("shape, kind", [((10**12,), "f4"), ((-1, 7), "f4"), ((2,), "O8"), ((2,), "V4")])
def test_a_state_that_does_not_fit(tmp_path: Path, shape: object, kind: str) -> None:
    path = tmp_path / "model.pkl"
    state = (1, shape, np.dtype("f4"), False, bytes(8))
    body = pickle.dumps(state, 2).replace(b"f4", kind.encode())[2:-1]
    start = (
        b"\x80\x02}X\x01\x00\x00\x00wcnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    )
    path.write_bytes(start + body + b"bs.")
    with pytest.raises(UserError, match=r"model\.pkl: holds more than pickled arrays"):
        files.read(path)


@pytest.mark.parametrize(
    "content",
    [b"\x80\x04r\xff\xff\xff\x7f.", b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f", b"\x80\x04\x95" + b"\x7f" * 8],
)
def test_sizes_of_the_file_are_not_allocated(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.pkl: holds more than pickled arrays"):
        files.read(path)


PICKLES = [pickle.dumps(CONTENT, protocol) for protocol in (0, 2, 4)]


@given(st.sampled_from(PICKLES).flatmap(cut_or_flipped))
def test_fuzz(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Random changes: arrays no larger than the file, or one line."""
    path = tmp_path_factory.getbasetemp() / "fuzz.pkl"
    path.write_bytes(content)
    if found := refused_or(files.read, path):
        assert sum(x.nbytes for x in found.tensors.values()) <= len(content)


@pytest.mark.parametrize("content", [gzip.compress(b"x", mtime=0), b"#!/bin/sh", b"\x1f\x8b"])
def test_another_kind_of_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.pkl: is no pickle; get it again"):
        files.read(tmp_path / "a.pkl")
