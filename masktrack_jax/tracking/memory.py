"""The tracker's memory of a video's objects: latest box and label, embeddings, number of frames unseen.

`MEMORIES` holds the rules, by name, that update the remembered embeddings with a new one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from masktrack_jax.tracking.options import AssociationOptions


class Frame(NamedTuple):
    """Detections of a frame: boxes (n, 4) in its own pixels, scores (n,), labels (n,), embeddings (n, E)."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    embeddings: np.ndarray

    def rows(self, keep: np.ndarray | slice) -> Frame:
        """Return the detections `keep` (a boolean mask, indices or a slice)."""
        return Frame(*(value[keep] for value in self))


@dataclass
class Memory:
    """The k remembered objects, one per row, in order of first appearance.

    ids (k,); boxes (k, 4) and labels (k,) of the latest detection; looks (k, N, E): remembered embeddings,
    newest first, zero after the first `held` (k,) of them; unseen (k,): frames since the latest detection.
    """

    ids: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    looks: np.ndarray
    held: np.ndarray
    unseen: np.ndarray

    @classmethod
    def of(cls, ids: np.ndarray, frame: Frame, size: int) -> Memory:
        """Return the memory of new objects `ids` with detections `frame`, with room for `size` looks each."""
        looks = np.zeros((len(ids), size, frame.embeddings.shape[1]), np.float32)
        looks[:, 0] = frame.embeddings
        return cls(ids, frame.boxes, frame.labels, looks, np.ones(len(ids), int), np.zeros(len(ids), int))

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, keep: np.ndarray) -> Memory:
        """Return the objects `keep` (a boolean mask or indices)."""
        return Memory(*(value[keep] for value in vars(self).values()))

    def extended(self, other: Memory) -> Memory:
        """Return the memory with the objects of `other` appended."""
        pairs = zip(vars(self).values(), vars(other).values())
        return Memory(*(np.concatenate(pair) for pair in pairs))

    def update(self, rows: np.ndarray, frame: Frame, options: AssociationOptions) -> None:
        """Update objects `rows` in place with detections `frame`; if a row repeats, the last one counts."""
        self.boxes[rows], self.unseen[rows] = frame.boxes, 0
        if options.update_label:
            self.labels[rows] = frame.labels
        self.looks[rows] = MEMORIES[options.memory](self.looks[rows], frame.embeddings, options)
        self.held[rows] = np.minimum(self.held[rows] + 1, self.looks.shape[1])


class MemoryRule(Protocol):
    """Return the new looks (m, N, E) of m objects, given the old ones and their new embeddings (m, E)."""

    def __call__(
        self, looks: np.ndarray, embeddings: np.ndarray, options: AssociationOptions, /
    ) -> np.ndarray: ...


def looks_per_object(options: AssociationOptions) -> int:
    """Return N, the number of embeddings that a memory keeps of each object."""
    return options.bank_size if options.memory == "bank" else 1


def last(looks: np.ndarray, embeddings: np.ndarray, options: AssociationOptions) -> np.ndarray:
    """The paper's rule: keep only the latest embedding."""
    return embeddings[:, None]


def average(looks: np.ndarray, embeddings: np.ndarray, options: AssociationOptions) -> np.ndarray:
    """(1 − a) · look + a · embedding, with a = `average_rate` (memo_momentum in QDTrack, there 0.8)."""
    return (1 - options.average_rate) * looks + options.average_rate * embeddings[:, None]


def bank(looks: np.ndarray, embeddings: np.ndarray, options: AssociationOptions) -> np.ndarray:
    """Keep the latest `bank_size` embeddings, newest first."""
    return np.concatenate([embeddings[:, None], looks[:, :-1]], axis=1)


MEMORIES: dict[str, MemoryRule] = {"last": last, "average": average, "bank": bank}
