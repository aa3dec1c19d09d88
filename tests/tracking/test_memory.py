"""Memories against loops over all past embeddings of an object."""

import numpy as np
import pytest

from masktrack_jax.tracking.memory import MEMORIES, Memory, looks_per_object
from masktrack_jax.tracking.options import AssociationOptions
from tests.helpers.tracking import random_frame


def slow_look(name: str, sights: list[np.ndarray], options: AssociationOptions) -> list[np.ndarray]:
    """The looks remembered of an object after its sights (embeddings), the newest first."""
    if name == "last":
        return [sights[-1]]
    if name == "bank":
        return sights[::-1][: options.bank_size]
    look = sights[0]
    for sight in sights[1:]:
        look = (1 - options.average_rate) * look + options.average_rate * sight
    return [look]


@pytest.mark.parametrize("name", sorted(MEMORIES))
def test_memories_equal_loops(name: str) -> None:
    options = AssociationOptions(memory=name, bank_size=3, average_rate=0.7)
    rng = np.random.default_rng(0)
    first = random_frame(rng, 4)
    memory = Memory.of(np.arange(4), first, looks_per_object(options))
    sights = [[embedding] for embedding in first.embeddings]
    for _ in range(7):
        seen = np.flatnonzero(rng.random(4) < [0.9, 0.6, 0.3, 0.0])
        frame = random_frame(rng, len(seen))
        memory.update(seen, frame, options)
        np.testing.assert_array_equal(memory.boxes[seen], frame.boxes)
        for i, embedding in zip(seen, frame.embeddings):
            sights[i].append(embedding)
    assert min(map(len, sights)) == 1 and max(map(len, sights)) > 3
    for i in range(4):
        wanted = slow_look(name, sights[i], options)
        assert memory.held[i] == len(wanted)
        np.testing.assert_allclose(memory.looks[i, : len(wanted)], wanted, atol=1e-6)
        assert not memory.looks[i, len(wanted) :].any()
