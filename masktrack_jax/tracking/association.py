"""Associate the detections of each frame with the remembered objects of the video.

The default is the paper's multi-cue greedy rule (Yang, Fan, Xu, "Video Instance Segmentation", ICCV 2019,
section 4.3) with the memory of mmtracking 0.14: an object's latest box, label and embedding, forgotten after
20 frames unseen. The authors' code differs in a few values of `AssociationOptions`.

Steps for a frame: `match_scores` (similarity.py) compares detections with "new" and the remembered objects,
`match` assigns a column to each detection by a rule of assignment.py, `only_good_starts` drops poor new
objects, and the `Memory` (memory.py) is updated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import numpy as np

from masktrack_jax.tracking.assignment import ASSIGNMENTS, DROPPED
from masktrack_jax.tracking.memory import Frame, Memory, looks_per_object
from masktrack_jax.tracking.options import DEFAULT, AssociationOptions
from masktrack_jax.tracking.similarity import box_iou, match_scores


class Tracker:
    """Assigns object ids to the detections of a video, frame by frame."""

    def __init__(self, options: AssociationOptions = DEFAULT) -> None:
        self.options = options
        self.reset()

    def reset(self) -> None:
        """Start a new video: forget all objects and count ids from 0 again."""
        self._objects = 0  # number of ids assigned so far; ids are never reused
        self._memory: Memory | None = None

    def state(self) -> dict[str, np.ndarray]:
        """Return the memory as {name: array}, for `restore`."""
        memory = {} if self._memory is None else vars(self._memory)
        copies = {name: value.copy() for name, value in memory.items()}
        return {"objects": np.array(self._objects), **copies}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace the memory by a `state`, and continue like the tracker that returned it."""
        self._objects = int(state["objects"])
        names = [field.name for field in fields(Memory) if field.name in state]
        self._memory = Memory(*(np.array(state[name]) for name in names)) if names else None

    def update(self, frame: Frame) -> np.ndarray:
        """Return the object ids (n,) int64 of a frame's detections, `DROPPED` for those without an object.

        The order of the detections matters: new objects are numbered in it, and the first of two equal claims
        to an object wins. Empty frames must be passed too, because they count as frames unseen.
        """
        frame, options = _as_arrays(frame), self.options
        size = looks_per_object(options)
        memory = self._memory
        if memory is None:
            memory = Memory.of(np.zeros(0, np.int64), frame.rows(slice(0)), size)

        columns = match(match_scores(frame, memory, options), frame.scores, options)
        columns = only_good_starts(columns, frame, options)
        new, seen = columns == 0, columns > 0
        ids = np.full(len(frame.boxes), DROPPED, np.int64)
        ids[seen] = memory.ids[columns[seen] - 1]
        ids[new] = self._objects + np.arange(new.sum())
        self._objects += int(new.sum())

        memory.unseen += 1
        memory.update(columns[seen] - 1, frame.rows(seen), options)
        if new.any():
            memory = memory.extended(Memory.of(ids[new], frame.rows(new), size))
        # As in mmtracking, a frame without detections removes no object from the memory, so an object that
        # returns in the next frame is still known.
        self._memory = _retained(memory, options) if len(frame.boxes) else memory
        return ids


def _as_arrays(frame: Frame) -> Frame:
    return Frame(
        np.asarray(frame.boxes, np.float32),
        np.asarray(frame.scores, np.float32),
        np.asarray(frame.labels, np.int64),
        np.asarray(frame.embeddings, np.float32),
    )


def _retained(memory: Memory, options: AssociationOptions) -> Memory:
    """Return the memory without objects unseen for `frames_retained` frames in a row, with this frame."""
    retained = memory.unseen < options.frames_retained
    return memory if not options.frames_retained or retained.all() else memory.rows(retained)


def match(scores: np.ndarray, confidence: np.ndarray, options: AssociationOptions) -> np.ndarray:
    """Return the column (n,) assigned to each detection by its match scores (n, 1 + k), or `DROPPED`.

    Detections with `confidence` (n,) below `high_score` are matched second, to the remaining objects.
    """
    rule, low = ASSIGNMENTS[options.assignment], confidence < options.high_score
    columns = np.zeros(len(scores), np.int64)
    columns[~low] = first = rule(scores[~low], confidence[~low], options)
    left = scores[low]
    left[:, first[first > 0]] = -np.inf
    columns[low] = rule(left, confidence[low], options)
    return columns


def only_good_starts(columns: np.ndarray, frame: Frame, options: AssociationOptions) -> np.ndarray:
    """Return `columns` (n,) with `DROPPED` for new objects that have a low score or duplicate others."""
    columns = columns.copy()
    columns[(columns == 0) & (frame.scores < max(options.high_score, options.new_score))] = DROPPED
    if options.duplicate_iou < 1:
        close, kept = box_iou(frame.boxes, frame.boxes) > options.duplicate_iou, columns > 0
        for i in np.argsort(-frame.scores, kind="stable"):
            if columns[i] == 0:
                columns[i] = DROPPED if (close[i] & kept).any() else 0
                kept[i] = columns[i] == 0
    return columns
