"""Access to the recorded numbers, and the rows of the comparison."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

FOLDER = Path(__file__).parent


class Row(NamedTuple):
    """One compared quantity: the largest difference found and the largest allowed."""

    recording: str
    quantity: str
    tolerance: float
    difference: float


@cache
def arrays(name: str) -> dict[str, np.ndarray]:
    """The arrays of a recording."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


@cache
def document(name: str) -> Any:
    """A recorded json document."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def largest(ours: ArrayLike, theirs: ArrayLike) -> float:
    """The largest absolute difference of two arrays; infinite where their shapes differ, or for a NaN."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape or not np.all(np.isfinite(ours)):
        return np.inf
    return float(np.abs(ours - theirs).max(initial=0.0))


def relative(ours: ArrayLike, theirs: ArrayLike) -> float:
    """`largest`, as a part of the value where that is larger than 1."""
    scale = np.maximum(np.abs(theirs), 1)
    return largest(np.asarray(ours) / scale, theirs / scale)


def unequal(ours: ArrayLike, theirs: ArrayLike) -> float:
    """How many entries of two arrays differ; infinite where their shapes do."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return float(np.sum(ours != theirs)) if ours.shape == theirs.shape else np.inf


def sampled(recording: dict[str, np.ndarray], key: str, tensor: ArrayLike) -> float:
    """Difference of a whole tensor, in PyTorch's layout, from a recording that may hold every n-th value."""
    values = recording[key]
    stride = int(recording.get(f"{key}@stride", 1))
    return largest(np.asarray(tensor).reshape(-1)[::stride], values.reshape(-1))


def nchw(tensor: ArrayLike) -> np.ndarray:
    """(…, H, W, C) as PyTorch's (…, C, H, W)."""
    return np.moveaxis(np.asarray(tensor), -1, -3)


class Worst:
    """Rows of one recording, each with its worst frame."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: dict[str, Row] = {}

    def add(self, quantity: str, tolerance: float, difference: float) -> None:
        before = self.rows[quantity].difference if quantity in self.rows else 0.0
        self.rows[quantity] = Row(self.name, quantity, tolerance, max(before, difference))

    def exact(self, quantity: str, ours: ArrayLike, theirs: ArrayLike) -> None:
        self.add(f"{quantity}: unequal", 0, unequal(ours, theirs))

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows.values())
