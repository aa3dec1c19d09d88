"""Collect the tracked detections of a video frame by frame, and turn them into one record per track.

The label and score of a track are computed from all its detections. `LABELS` and `SCORES` hold the rules by
name.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, repeat
from operator import attrgetter
from typing import NamedTuple, Protocol, TypedDict

import numpy as np

from masktrack_jax.masks.paste import move_mask
from masktrack_jax.masks.rle import Rle
from masktrack_jax.runtime.options import at_least, one_of_table, option


@dataclass(frozen=True)
class TrackOptions:
    """How detections become a track; the defaults are those of the authors and mmtracking."""

    label: str = option(
        "majority", "rule for a track's label, see docs/tracking.md", one_of_table(lambda: LABELS)
    )
    score: str = option(
        "mean", "rule for a track's score, see docs/tracking.md", one_of_table(lambda: SCORES)
    )
    fill_gaps: int = option(0, "longest gap, in frames, to fill with moved masks", at_least(0))


DEFAULT = TrackOptions()


@dataclass(frozen=True)
class FrameResult:
    """The tracked detections of one frame, n of them, in the order of the association.

    boxes (n, 4) float32 x1, y1, x2, y2 in pixels of the original frame; scores (n,); labels (n,) 0…K−1;
    probabilities (n, K) of the classes; track_ids (n,) int64, unique (but see
    `AssociationOptions.keep_displaced`); rles: n compressed RLEs at the original frame's size.
    """

    index: int
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    track_ids: np.ndarray
    rles: list[Rle]


class Detection(NamedTuple):
    """One detection of a track: frame index, label, score, RLE, box (4,) and class probabilities (K,)."""

    frame: int
    label: int
    score: float
    rle: Rle
    box: np.ndarray
    probabilities: np.ndarray


@dataclass
class Track:
    """The detections of one object, as parallel lists of the fields of `Detection`."""

    frames: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    rles: list[Rle] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)
    probabilities: list[np.ndarray] = field(default_factory=list)

    def add(self, detection: Detection) -> None:
        """Append a detection."""
        for values, value in zip(vars(self).values(), detection, strict=True):
            values.append(value)

    def detections(self) -> Iterator[Detection]:
        """Yield the detections in the order they were added."""
        return map(Detection._make, zip(*vars(self).values()))


class TrackRecord(TypedDict):
    """A track in a YouTube-VIS results file, plus `track_id`; `segmentations` has one entry per frame."""

    video_id: int | str
    track_id: int
    category_id: int
    score: float
    segmentations: list[Rle | None]


class VideoTracks:
    """Collects the tracked detections of one video and turns them into tracks.

    Masks are stored as RLEs, so memory does not grow with resolution × frames.
    """

    def __init__(self, options: TrackOptions = DEFAULT) -> None:
        self.options = options
        self.frame_count = 0
        self._tracks: dict[int, Track] = defaultdict(Track)

    def add(self, result: FrameResult) -> None:
        """Add the next frame. Detections with negative ids are left out.

        Empty frames must be added too; their entry in `segmentations` is None.
        """
        for track_id, detection in detections_of(result, self.frame_count):
            if track_id >= 0:
                self._tracks[track_id].add(detection)
        self.frame_count += 1

    def finish(self, video_id: int | str, category_ids: Sequence[int]) -> list[TrackRecord]:
        """Return the tracks in order of their ids.

        category_ids: the data set's id of each label. Filled frames do not affect label and score.
        """
        return [
            self._finish(video_id, track_id, track, category_ids)
            for track_id, track in sorted(self._tracks.items())
        ]

    def _finish(
        self, video_id: int | str, track_id: int, track: Track, category_ids: Sequence[int]
    ) -> TrackRecord:
        label, score = judge(track, self.frame_count, self.options)
        masks = segmentations(track.detections(), self.frame_count, self.options.fill_gaps)
        return TrackRecord(
            video_id=video_id,
            track_id=track_id,
            category_id=category_ids[label],
            score=score,
            segmentations=list(masks),
        )


def detections_of(result: FrameResult, frame: int) -> Iterator[tuple[int, Detection]]:
    """Yield the track id and `Detection` of each detection of a frame with index `frame`."""
    columns = (result.labels, result.scores, result.rles, result.boxes, result.probabilities)
    for track_id, label, score, *rest in zip(result.track_ids, *columns):
        yield int(track_id), Detection(frame, int(label), float(score), *rest)


def judge(track: Track, frame_count: int, options: TrackOptions) -> tuple[int, float]:
    """Return the label and the score of a track in a video of `frame_count` frames, without its masks."""
    label = LABELS[options.label](track)
    return label, SCORES[options.score](track, label, frame_count)


def segmentations(
    detections: Iterable[Detection], frame_count: int, longest_gap: int
) -> Iterator[Rle | None]:
    """Yield a track's RLE or None for each frame of the video, reading its detections in order.

    If a frame has several detections, the last one counts. Gaps of up to `longest_gap` frames are filled: the
    box is interpolated linearly between two detections, and the mask of the first one moves with it.
    """
    before: Detection | None = None
    for _, of_frame in groupby(detections, key=attrgetter("frame")):
        *_, after = of_frame
        start = -1 if before is None else before.frame
        for missing in range(start + 1, after.frame):
            if before is None or after.frame - start > longest_gap + 1:
                yield None
            else:
                part = (missing - start) / (after.frame - start)
                yield move_mask(before.rle, before.box, (1 - part) * before.box + part * after.box)
        before = after
        yield after.rle
    yield from repeat(None, frame_count - (-1 if before is None else before.frame) - 1)


class LabelRule(Protocol):
    """Return the label of a track."""

    def __call__(self, track: Track, /) -> int: ...


def majority(track: Track) -> int:
    """The most frequent label, the smallest one among equals, as in the authors' code and mmtracking."""
    counts = Counter(track.labels)
    return min(counts, key=lambda label: (-counts[label], label))


def vote(track: Track) -> int:
    """The class k with the largest Σ score · p(k) over the detections, the smallest one among equals."""
    return int(np.argmax(np.asarray(track.scores) @ np.asarray(track.probabilities, np.float64)))


LABELS: dict[str, LabelRule] = {"majority": majority, "vote": vote}


class ScoreRule(Protocol):
    """Return the score of a track with this label in a video of `frame_count` frames."""

    def __call__(self, track: Track, label: int, frame_count: int, /) -> float: ...


def mean(track: Track, label: int, frame_count: int) -> float:
    """The mean of the detections' scores of all labels, as in the authors' code and mmtracking."""
    return sum(track.scores) / len(track.scores)


def class_mean(track: Track, label: int, frame_count: int) -> float:
    """The mean of the detections' probabilities of the track's label."""
    return float(np.mean([probabilities[label] for probabilities in track.probabilities], dtype=np.float64))


def presence(track: Track, label: int, frame_count: int) -> float:
    """`class_mean` times the fraction of the video's frames in which the object was seen."""
    return class_mean(track, label, frame_count) * len(set(track.frames)) / frame_count


SCORES: dict[str, ScoreRule] = {"mean": mean, "class_mean": class_mean, "presence": presence}
