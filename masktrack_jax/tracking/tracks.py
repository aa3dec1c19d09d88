"""The life of a video's tracks: collected frame by frame, finished into one record a track."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field


@dataclass
class _Track:
    """The detections of one object: parallel lists of frame indices, labels, scores and RLEs."""

    frames: list = field(default_factory=list)
    labels: list = field(default_factory=list)
    scores: list = field(default_factory=list)
    rles: list = field(default_factory=list)


class VideoTracks:
    """Collects the tracked detections of one video and turns them into tracks.

    Only run lengths, labels and scores are kept, so memory does not grow with resolution × frames.
    """

    def __init__(self):
        self.frame_count = 0
        self._tracks = defaultdict(_Track)

    def add(self, ids, labels, scores, rles):
        """Take the next frame's detections: n ids, labels, scores and RLEs; negative ids are left out.

        An empty frame must be added too: its place in `segmentations` is None.
        """
        for track_id, label, score, rle in zip(ids, labels, scores, rles):
            if track_id < 0:
                continue
            track = self._tracks[int(track_id)]
            track.frames.append(self.frame_count)
            track.labels.append(int(label))
            track.scores.append(float(score))
            track.rles.append(rle)
        self.frame_count += 1

    def finish(self, video_id, category_ids):
        """Return the tracks in order of their ids, in the form of a YouTube-VIS results file.

        category_ids: the data set's id of each label. A track's score is the mean of its detections',
        its category the majority's (ties to the smallest label), both as the authors' and mmtracking's
        video results; `segmentations` has an RLE or None for every frame of the video.
        """
        return [
            {
                "video_id": video_id,
                "track_id": track_id,
                "category_id": category_ids[majority(track.labels)],
                "score": sum(track.scores) / len(track.scores),
                "segmentations": self._segmentations(track),
            }
            for track_id, track in sorted(self._tracks.items())
        ]

    def _segmentations(self, track):
        """Return one RLE or None for each frame so far."""
        seen = dict(zip(track.frames, track.rles))
        return [seen.get(frame) for frame in range(self.frame_count)]


def majority(labels):
    """Return the most frequent of the labels, of equals the smallest."""
    counts = Counter(labels)
    return min(counts, key=lambda label: (-counts[label], label))
