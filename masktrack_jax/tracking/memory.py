"""What is remembered of a video's objects: where each was last, what it looks like, how long it is away.

How a new sight changes the remembered look is a function of `MEMORIES`, chosen by name.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Frame(NamedTuple):
    """Detections of a frame: boxes (n, 4) in its own pixels, scores (n,), labels (n,), embeddings (n, E)."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    embeddings: np.ndarray

    def rows(self, keep):
        """Return the detections `keep` (a boolean mask or indices)."""
        return Frame(*(value[keep] for value in self))


@dataclass
class Memory:
    """What is known of k past objects, one a row, in order of first appearance.

    ids (k,); of the latest sight: boxes (k, 4), labels (k,); looks (k, N, E): remembered embeddings, the
    newest first, of which the first `held` (k,) are set; unseen (k,): frames since the latest sight.
    """

    ids: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    looks: np.ndarray
    held: np.ndarray
    unseen: np.ndarray

    @classmethod
    def of(cls, ids, frame, size):
        """Return the memory of objects `ids` first seen as `frame`, with room for `size` looks."""
        looks = np.zeros((len(ids), size, frame.embeddings.shape[1]), np.float32)
        looks[:, 0] = frame.embeddings
        return cls(ids, frame.boxes, frame.labels, looks, np.ones(len(ids), int), np.zeros(len(ids), int))

    def __len__(self):
        return len(self.ids)

    def rows(self, keep):
        """Return the memory of the rows `keep` (a boolean mask or indices)."""
        return Memory(*(value[keep] for value in vars(self).values()))

    def extended(self, other):
        """Return the memory with the objects of `other` at its end."""
        pairs = zip(vars(self).values(), vars(other).values())
        return Memory(*(np.concatenate(pair) for pair in pairs))

    def see(self, rows, frame, options):
        """Set objects `rows` to how they were just seen, in place. Of equal rows the last one stays."""
        self.boxes[rows], self.unseen[rows] = frame.boxes, 0
        if options.update_label:
            self.labels[rows] = frame.labels
        self.looks[rows] = MEMORIES[options.memory](self.looks[rows], frame.embeddings, options)
        self.held[rows] = np.minimum(self.held[rows] + 1, self.looks.shape[1])


def room(options):
    """How many looks an object has."""
    return options.bank_size if options.memory == "bank" else 1


def last(looks, embeddings, options):
    """Only the latest embedding (m, E) in place of the looks (m, 1, E): the paper's."""
    return embeddings[:, None]


def average(looks, embeddings, options):
    """(1 − a) · look + a · embedding, a = `average_rate` (QDTrack's memo_momentum, 0.8 there)."""
    return (1 - options.average_rate) * looks + options.average_rate * embeddings[:, None]


def bank(looks, embeddings, options):
    """The latest `bank_size` embeddings: the new one in front, the oldest falls out."""
    return np.concatenate([embeddings[:, None], looks[:, :-1]], axis=1)


MEMORIES = {"last": last, "average": average, "bank": bank}
