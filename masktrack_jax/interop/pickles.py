"""Read the arrays of a pickle, such as detectron2's `.pkl` files, without running any code that it names.

A pickle is a program: it names functions and calls them. Here the only names are those that store a NumPy
array, and they stand for the classes and functions below, which hold values and do nothing. Any other name is
refused. Not even NumPy's own functions are called: the state of an array may state another size than its
bytes have.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

TYPES = ("f2", "f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "b1")  # without the byte order


class _Dtype:
    """`numpy.dtype(name, align, copy)`."""

    def __init__(self, name: str, *_: object) -> None:
        self.name, self.order = name, "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]


class _Array:
    """`numpy.core.multiarray._reconstruct(class, shape, type)`; its state holds the values."""

    def __init__(self, *_: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def value(self) -> np.ndarray:
        """The array. Raises an error of any type if the state is not a plain array's."""
        _, shape, dtype, in_columns, data = self.state
        if type(dtype) is not _Dtype or dtype.name not in TYPES or dtype.order not in ("<", ">", "|", "="):
            raise ValueError("an array has values of another type than numbers")
        data = data.encode("latin1") if isinstance(data, str) else data
        values = np.frombuffer(data, np.dtype(f"{dtype.order}{dtype.name}"))
        shaped = values.reshape(shape, order="F" if in_columns else "C")
        return shaped.astype(shaped.dtype.newbyteorder("="))


class _Class:
    """`numpy.ndarray`, which is named and never called."""


def _encode(text: str, encoding: str) -> bytes:
    """`_codecs.encode`, by which protocol 2 stores bytes."""
    if encoding != "latin1":
        raise ValueError(f"text in {encoding:.20}")
    return text.encode("latin1")


def _empty() -> bytes:
    """`bytes()`, by which protocol 2 stores no bytes."""
    return b""


NAMES = {
    ("numpy", "ndarray"): _Class,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _empty,
}


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined]  # the one in C allocates by numbers of the file
    """Builds lists, dicts, numbers, text and the classes above, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        found = NAMES.get((module.replace("numpy._core", "numpy.core"), name))
        if found is None:
            raise pickle.UnpicklingError(f"names {module:.50}.{name:.50}, and code of a file is never run")
        return found


def read_arrays(content: bytes) -> dict[str, Any]:
    """The dict in a pickle, with its arrays as NumPy arrays, at the top and in the dicts one level below.

    Raises an error of any type for a pickle of anything else.
    """
    found = _Unpickler(io.BytesIO(content), encoding="latin1").load()
    if type(found) is not dict:
        raise ValueError(f"a {type(found).__name__} and no dict")
    return {key: _values(value) if type(value) is dict else _plain(value) for key, value in found.items()}


def _values(entries: dict[str, Any]) -> dict[str, Any]:
    return {key: _plain(value) for key, value in entries.items()}


def _plain(value: Any) -> Any:
    return value.value() if type(value) is _Array else value
