"""Detections, memories and results of frames for the tests of tracks and associations."""

from typing import Any

import numpy as np

from masktrack_jax.tracking.memory import Frame, Memory
from masktrack_jax.tracking.tracks import FrameResult

SIZE, LOOKS = 4, 3  # of an embedding; of an object


def random_frame(rng: np.random.Generator, n: int) -> Frame:
    corners = rng.uniform(0, 60, (n, 2))
    return Frame(
        np.hstack([corners, corners + rng.uniform(5, 40, (n, 2))]).astype(np.float32),
        rng.uniform(0.05, 1, n).astype(np.float32),
        rng.integers(0, 2, n),
        rng.normal(0, 1, (n, SIZE)).astype(np.float32),
    )


def random_memory(rng: np.random.Generator, k: int, looks: int = LOOKS) -> Memory:
    """k objects with one to `looks` looks, unseen for up to four frames."""
    memory = Memory.of(np.arange(k) + 10, random_frame(rng, k), looks)
    memory.held[:] = rng.integers(1, looks + 1, k)
    for i, held in enumerate(memory.held):
        memory.looks[i, :held] = rng.normal(0, 1, (held, SIZE))
    memory.unseen[:] = rng.integers(0, 5, k)
    return memory


def result(
    ids: Any, labels: Any, scores: Any, rles: list[Any], boxes: Any = None, probabilities: Any = None
) -> FrameResult:
    """A `FrameResult`; without `boxes` and `probabilities` these are zeros."""
    boxes = np.zeros((len(ids), 4)) if boxes is None else np.array(boxes, np.float32)
    probabilities = np.zeros((len(ids), 3)) if probabilities is None else np.array(probabilities, np.float32)
    return FrameResult(
        index=0,
        boxes=boxes,
        scores=scores,
        labels=labels,
        probabilities=probabilities,
        track_ids=ids,
        rles=rles,
    )
