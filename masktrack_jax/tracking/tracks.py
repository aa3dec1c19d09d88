"""The life of a video's tracks: collected frame by frame, finished into one record a track.

A track's label and score are made of all its detections by a function of `LABELS` and one of `SCORES`, chosen
by name.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import groupby, repeat
from operator import itemgetter

import numpy as np

from masktrack_jax.masks.paste import move_mask
from masktrack_jax.runtime.options import at_least, one_of_table, option


@dataclass(frozen=True)
class TrackOptions:
    """What becomes of a track's detections; the defaults are the authors' and mmtracking's."""

    label: str = option("majority", "from the detections, see docs/tracking.md", one_of_table(lambda: LABELS))
    score: str = option("mean", "from the detections, see docs/tracking.md", one_of_table(lambda: SCORES))
    fill_gaps: int = option(0, "longest gap, in frames, to fill with moved masks", at_least(0))


DEFAULT = TrackOptions()


@dataclass
class Track:
    """The t detections of one object: parallel lists, of arrays (4,) and (K,) the boxes and probabilities."""

    frames: list = field(default_factory=list)
    labels: list = field(default_factory=list)
    scores: list = field(default_factory=list)
    rles: list = field(default_factory=list)
    boxes: list = field(default_factory=list)
    probabilities: list = field(default_factory=list)

    def add(self, *detection):
        """Append a detection: a value for each of the lists."""
        for values, value in zip(vars(self).values(), detection, strict=True):
            values.append(value)


class VideoTracks:
    """Collects the tracked detections of one video and turns them into tracks.

    Of a mask only its run lengths are kept, so memory does not grow with resolution × frames.
    """

    def __init__(self, options=DEFAULT):
        self.options = options
        self.frame_count = 0
        self._tracks = defaultdict(Track)

    def add(self, result):
        """Take the next frame's `FrameResult`; detections of negative ids are left out.

        An empty frame must be added too: its place in `segmentations` is None.
        """
        columns = (result.labels, result.scores, result.rles, result.boxes, result.probabilities)
        for track_id, label, score, rle, box, probabilities in zip(result.track_ids, *columns):
            if track_id < 0:
                continue
            self._tracks[int(track_id)].add(
                self.frame_count, int(label), float(score), rle, box, probabilities
            )
        self.frame_count += 1

    def finish(self, video_id, category_ids):
        """Return the tracks in order of their ids, in the form of a YouTube-VIS results file.

        category_ids: the data set's id of each label. `segmentations` has an RLE or None for every frame of
        the video. Frames that are filled have no say in label and score.
        """
        return [
            {
                **judged(video_id, track_id, track, self.frame_count, category_ids, self.options),
                "segmentations": list(self._segmentations(track)),
            }
            for track_id, track in sorted(self._tracks.items())
        ]

    def _segmentations(self, track):
        sights = zip(track.frames, track.rles, track.boxes)
        return segmentations(sights, self.frame_count, self.options.fill_gaps)


def judged(video_id, track_id, track, frame_count, category_ids, options):
    """Return what a results file says of a `Track` besides its masks, which are not needed here."""
    label = LABELS[options.label](track)
    return {
        "video_id": video_id,
        "track_id": track_id,
        "category_id": category_ids[label],
        "score": SCORES[options.score](track, label, frame_count),
    }


def segmentations(sights, frame_count, longest_gap):
    """Yield a track's RLE or None for each frame of the video, while its sights are read.

    sights: frame, RLE and box (4,) of its detections in order; of those in one frame the last one counts.
    Gaps of up to `longest_gap` frames are closed: between two sights the box moves evenly from one to the
    other, and the mask of the first goes with it.
    """
    frame, rle, box = -1, None, None  # the latest sight
    for _, sights_of_frame in groupby(sights, key=itemgetter(0)):
        *_, (then, next_rle, next_box) = sights_of_frame
        for missing in range(frame + 1, then):
            if rle is None or then - frame > longest_gap + 1:
                yield None
            else:
                part = (missing - frame) / (then - frame)
                yield move_mask(rle, box, (1 - part) * box + part * next_box)
        frame, rle, box = then, next_rle, next_box
        yield rle
    yield from repeat(None, frame_count - frame - 1)


def majority(track):
    """The most frequent of the labels, of equals the smallest: the authors' and mmtracking's."""
    counts = Counter(track.labels)
    return min(counts, key=lambda label: (-counts[label], label))


def vote(track):
    """The class k with the largest Σ score · p(k) over the detections, of equals the smallest."""
    return int(np.argmax(np.asarray(track.scores) @ np.asarray(track.probabilities, np.float64)))


LABELS = {"majority": majority, "vote": vote}


def mean(track, label, frame_count):
    """The mean of the detections' scores, whatever their labels: the authors' and mmtracking's."""
    return sum(track.scores) / len(track.scores)


def class_mean(track, label, frame_count):
    """The mean of the detections' probabilities of the track's label."""
    return float(np.mean([probabilities[label] for probabilities in track.probabilities], dtype=np.float64))


def presence(track, label, frame_count):
    """`class_mean` times the part of the video's frames that the object was seen in."""
    return class_mean(track, label, frame_count) * len(set(track.frames)) / frame_count


SCORES = {"mean": mean, "class_mean": class_mean, "presence": presence}
