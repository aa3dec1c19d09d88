"""Which remembered object is each detection of a frame: the paper's multi-cue greedy rule.

Yang, Fan, Xu, "Video Instance Segmentation", ICCV 2019, section 4.3, with the memory of mmtracking 0.14
(latest box, label and embedding of an object; forgotten after 20 frames unseen). The authors' own form
differs by values of `AssociationOptions`.

A frame goes through three plain functions: `match_scores` (detections × [new, remembered objects]),
`claim` (a column for every detection) and `Tracker.update` (the
bookkeeping). Another rule of association is another function in the place of one of the first two.
"""

from dataclasses import dataclass

import numpy as np

DROPPED = -1  # the id of a detection that lost its object to a better one of the same frame


@dataclass(frozen=True)
class AssociationOptions:
    """The weights of the cues and the length of the memory; defaults are the published weights.

    score_weight, iou_weight, label_weight: α, β, γ of the paper's equation 4.
    frames_retained: an object unseen in this many frames in a row is forgotten; 0 never forgets.
    update_label: an object's label is its latest detection's (mmtracking), not its first one's (the authors).
    keep_displaced: a detection that claimed an object before a better one of the same frame came up keeps its
        id too, so that a track may have two detections in a frame (mmtracking); else it is dropped.
    use_embedding: False replaces the match logits by zeros, to measure what the track head is worth.
    """

    score_weight: float = 1.0
    iou_weight: float = 2.0
    label_weight: float = 10.0
    frames_retained: int = 20
    update_label: bool = True
    keep_displaced: bool = False
    use_embedding: bool = True


DEFAULT = AssociationOptions()


@dataclass
class Memory:
    """What is known of k past objects, one a row, in order of first appearance.

    ids (k,); of the latest sight: boxes (k, 4), labels (k,), embeddings (k, E), last_seen (k,), a frame.
    """

    ids: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    embeddings: np.ndarray
    last_seen: np.ndarray

    def __len__(self):
        return len(self.ids)

    def rows(self, keep):
        """Return the memory of the rows `keep` (a boolean mask or indices)."""
        return Memory(*(value[keep] for value in vars(self).values()))

    def overwrite(self, rows, boxes, labels, embeddings, frame):
        """Set objects `rows` to how they were just seen, in place. Of equal rows the last one stays."""
        self.boxes[rows], self.labels[rows], self.embeddings[rows] = boxes, labels, embeddings
        self.last_seen[rows] = frame

    def extended(self, ids, boxes, labels, embeddings, frame):
        """Return the memory with new objects at its end."""
        added = (ids, boxes, labels, embeddings, np.full(len(ids), frame))
        return Memory(*(np.concatenate([old, new]) for old, new in zip(vars(self).values(), added)))


class Tracker:
    """Gives the detections of one video's frames their object ids, frame after frame."""

    def __init__(self, options=DEFAULT):
        self.options = options
        self.reset()

    def reset(self):
        """Forget everything: the next frame is the first of a video and ids start at 0 again."""
        self._frame = -1
        self._objects = 0  # ids given so far; a forgotten id is not given again
        self._memory = None

    def update(self, boxes, scores, labels, embeddings):
        """Return the object ids (n,) int64 of a frame's detections; `DROPPED` where one lost its object.

        boxes (n, 4) in pixels of the original image, scores (n,), labels (n,), embeddings (n, E).
        The order of the detections matters: new objects are numbered in it, and of two equal claims to
        an object the first wins. n may be 0; the frame then still counts as one in which nothing was seen.
        """
        boxes, scores = np.asarray(boxes, np.float32), np.asarray(scores, np.float32)
        labels, embeddings = np.asarray(labels, np.int64), np.asarray(embeddings, np.float32)
        self._frame += 1
        if self._memory is None:
            nothing = np.zeros(0, np.int64)
            self._memory = Memory(nothing, boxes[:0], nothing, embeddings[:0], nothing)

        options = self.options
        scored = match_scores(self._memory, boxes, scores, labels, embeddings, options)
        columns = claim(scored, options.keep_displaced)
        new, seen = columns == 0, columns > 0
        ids = np.full(len(boxes), DROPPED, np.int64)
        ids[seen] = self._memory.ids[columns[seen] - 1]
        ids[new] = self._objects + np.arange(new.sum())
        self._objects += int(new.sum())

        rows = columns[seen] - 1
        remembered = labels[seen] if options.update_label else self._memory.labels[rows]
        self._memory.overwrite(rows, boxes[seen], remembered, embeddings[seen], self._frame)
        if new.any():
            self._memory = self._memory.extended(
                ids[new], boxes[new], labels[new], embeddings[new], self._frame
            )
        self._forget(anything_seen=len(boxes) > 0)
        return ids

    def _forget(self, anything_seen):
        """Drop the objects that were unseen for `frames_retained` frames in a row, this one included.

        As in mmtracking, not at a frame in which nothing at all was seen: objects that come back right after
        it are still known.
        """
        if anything_seen and self.options.frames_retained:
            retained = self._frame - self._memory.last_seen < self.options.frames_retained
            if not retained.all():
                self._memory = self._memory.rows(retained)


def match_scores(memory, boxes, scores, labels, embeddings, options):
    """Return the match scores (n, 1 + k) float64 of n detections with "new" (column 0) and k objects.

    log softmax([0, e·m₁ … e·m_k]) + α log(score) + β [0, IoU with the last box] + γ [1, same label]
    (the paper's equations 1 and 4; that "new" has IoU 0 and label term 1 is both implementations').
    """
    column = np.zeros((len(boxes), 1))
    if options.use_embedding:
        logits = np.hstack([column, embeddings @ memory.embeddings.T])
    else:
        logits = np.zeros((len(boxes), 1 + len(memory)))
    overlaps = np.hstack([column, box_iou(boxes, memory.boxes)])
    same_label = np.hstack([column + 1, labels[:, None] == memory.labels])
    # A score of exactly 0 would make a whole row -inf and lose the other cues.
    log_scores = np.log(np.maximum(scores, np.finfo(np.float32).tiny), dtype=np.float64)
    return (
        log_softmax(logits)
        + options.score_weight * log_scores[:, None]
        + options.iou_weight * overlaps
        + options.label_weight * same_label
    )


def claim(scores, keep_displaced=False):
    """Return the column (n,) that each detection gets of its match scores (n, 1 + k); `DROPPED` if none.

    Every detection claims its best column. Column 0, "new", is free to all. An object goes to the detection
    with the highest match score, of equals to the first; the others do not fall back to their second choice
    (mmtracking's and the authors' rule). They are dropped; `keep_displaced` keeps those that were the best
    when their turn came. Then a column may occur several times, the last of them being the best.
    """
    columns, best = scores.argmax(axis=1), scores.max(axis=1)
    earlier = np.tri(len(scores), k=-1, dtype=bool) & (columns[:, None] == columns)
    beaten = (earlier & (best >= best[:, None])).any(axis=1)  # by one before it
    if not keep_displaced:
        beaten |= (earlier & (best < best[:, None])).any(axis=0)  # by one after it
    return np.where(beaten & (columns > 0), DROPPED, columns)


def box_iou(boxes, others):
    """Return the intersection over union (n, k) of boxes (n, 4) and others (k, 4); 0 for empty boxes."""
    boxes, others = np.asarray(boxes, np.float64), np.asarray(others, np.float64)
    upper_left = np.maximum(boxes[:, None, :2], others[None, :, :2])
    lower_right = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    intersection = np.prod(np.maximum(lower_right - upper_left, 0), axis=2)
    area, other_area = (np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (boxes, others))
    union = area[:, None] + other_area[None] - intersection
    return intersection / np.maximum(union, 1e-6)


def log_softmax(logits):
    """Return log(softmax(logits)) over the last axis, without overflow."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
