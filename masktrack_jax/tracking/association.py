"""Which remembered object each detection of a frame is, by rules that are chosen by name.

The default is the paper's multi-cue greedy rule (Yang, Fan, Xu, "Video Instance Segmentation", ICCV 2019,
section 4.3) with the memory of mmtracking 0.14: an object's latest box, label and embedding, forgotten after
20 frames unseen. The authors' own form differs in a few values of `AssociationOptions`.

A frame goes through `match_scores` (similarity.py: detections × [new, remembered objects]), `match` (a column
for every detection, by a rule of assignment.py), `only_good_starts` and into the `Memory` (memory.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from masktrack_jax.runtime.options import Check, at_least, between, one_of, one_of_table, option, positive
from masktrack_jax.tracking.assignment import ASSIGNMENTS, DROPPED
from masktrack_jax.tracking.memory import MEMORIES, Frame, Memory, looks_per_object
from masktrack_jax.tracking.similarity import SIMILARITIES, box_iou, match_scores


@dataclass(frozen=True)
class AssociationOptions:
    """The rules, the weights of the cues and the length of the memory; the defaults are the published ones.

    docs/tracking.md describes each of them, with its source.
    """

    similarity: str = option(
        "softmax", "of embeddings, see docs/tracking.md", one_of_table(lambda: SIMILARITIES)
    )
    assignment: str = option(
        "greedy", "of detections to objects, see docs/tracking.md", one_of_table(lambda: ASSIGNMENTS)
    )
    memory: str = option(
        "last", "of an object's embeddings, see docs/tracking.md", one_of_table(lambda: MEMORIES)
    )
    new_threshold: float = option(0.0, "likeness of a new object, beside those of the remembered")
    use_embedding: bool = option(True, "False: similarity none, to measure what the track head is worth")
    score_weight: float = option(1.0, "α of equation 4; 0 leaves this cue out", at_least(0))
    iou_weight: float = option(2.0, "β of equation 4; 0 leaves this cue out", at_least(0))
    label_weight: float = option(10.0, "γ of equation 4; 0 leaves this cue out", at_least(0))
    same_label: bool = option(False, "an object goes to detections of its own label only")
    iou_frames: int = option(0, "frames unseen until the IoU cue has faded; 0: never", at_least(0))
    average_rate: float = option(
        0.8,
        "of the newest embedding (memory average)",
        Check(lambda x: 0 < x <= 1, "must be in (0, 1]"),
    )
    bank_size: int = option(10, "embeddings of an object (memory bank)", positive)
    bank_compare: str = option("mean", "of the similarities to them (memory bank)", one_of("mean", "max"))
    frames_retained: int = option(20, "frames unseen until an object is forgotten; 0: never", at_least(0))
    update_label: bool = option(True, "an object's label is its latest detection's; False: its first one's")
    keep_displaced: bool = option(False, "greedy: a detection displaced by a better one keeps the id too")
    second_choice: bool = option(True, "hungarian, in_turn: a detection may get another object than its best")
    high_score: float = option(0.0, "lower scores get the objects left over and start none", between(0, 1))
    new_score: float = option(0.0, "lower scores start no object", between(0, 1))
    duplicate_iou: float = option(
        1.0, "nor do boxes of higher IoU with one that got or starts an object", between(0, 1)
    )


DEFAULT = AssociationOptions()


class Tracker:
    """Gives the detections of one video's frames their object ids, frame after frame."""

    def __init__(self, options: AssociationOptions = DEFAULT) -> None:
        self.options = options
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next frame is the first of a video and ids start at 0 again."""
        self._objects = 0  # ids given so far; a forgotten id is not given again
        self._memory: Memory | None = None

    def state(self) -> dict[str, np.ndarray]:
        """Return what is remembered as {name: array}, for `restore`."""
        memory = {} if self._memory is None else vars(self._memory)
        copies = {name: value.copy() for name, value in memory.items()}
        return {"objects": np.array(self._objects), **copies}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace the memory by a `state`. The tracker then continues as the one that gave it."""
        self._objects = int(state["objects"])
        names = [field.name for field in fields(Memory) if field.name in state]
        self._memory = Memory(*(np.array(state[name]) for name in names)) if names else None

    def update(self, frame: Frame) -> np.ndarray:
        """Return the object ids (n,) int64 of a frame's detections, `DROPPED` for those without an object.

        The order of the detections matters: new objects are numbered in it, and of two equal claims to an
        object the first wins. An empty frame must be passed too: it counts as one in which nothing was seen.
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
        # As in mmtracking, a frame without any detection makes no object be forgotten: those that come back
        # right after it are still known.
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
    """Return the memory without objects unseen for `frames_retained` frames in a row, this one included."""
    retained = memory.unseen < options.frames_retained
    return memory if not options.frames_retained or retained.all() else memory.rows(retained)


def match(scores: np.ndarray, confidence: np.ndarray, options: AssociationOptions) -> np.ndarray:
    """Return the column (n,) that each detection gets of its match scores (n, 1 + k), or `DROPPED`.

    Detections whose score, `confidence` (n,), is below `high_score` come second, to the objects left over.
    """
    rule, low = ASSIGNMENTS[options.assignment], confidence < options.high_score
    columns = np.zeros(len(scores), np.int64)
    columns[~low] = first = rule(scores[~low], confidence[~low], options)
    left = scores[low]
    left[:, first[first > 0]] = -np.inf
    columns[low] = rule(left, confidence[low], options)
    return columns


def only_good_starts(columns: np.ndarray, frame: Frame, options: AssociationOptions) -> np.ndarray:
    """Return `columns` (n,) with `DROPPED` for new objects that score too little or duplicate others."""
    columns = columns.copy()
    columns[(columns == 0) & (frame.scores < max(options.high_score, options.new_score))] = DROPPED
    if options.duplicate_iou < 1:
        close, kept = box_iou(frame.boxes, frame.boxes) > options.duplicate_iou, columns > 0
        for i in np.argsort(-frame.scores, kind="stable"):
            if columns[i] == 0:
                columns[i] = DROPPED if (close[i] & kept).any() else 0
                kept[i] = columns[i] == 0
    return columns
