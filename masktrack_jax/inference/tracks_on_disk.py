"""Like `tracking.tracks.VideoTracks`, but with the detections in a file, so memory does not grow."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, TextIO

import numpy as np

from masktrack_jax.masks.rle import Rle
from masktrack_jax.tracking.tracks import (
    Detection,
    FrameResult,
    Track,
    TrackOptions,
    TrackRecord,
    detections_of,
    judge,
    segmentations,
)

NO_MASK: Rle = {"size": [0, 0], "counts": ""}
NO_BOX = np.zeros(4, np.float32)


class StoredTracks:
    """Collects the tracked detections of one video in a file and turns them into tracks, one at a time.

    file: opened in binary mode for reading and appending. It may already contain the detections of
    `frame_count` frames. A line is a JSON list: the track id and the fields of a `Detection`.
    """

    def __init__(self, file: BinaryIO, options: TrackOptions, frame_count: int = 0) -> None:
        self.options, self.frame_count = options, frame_count
        self._file = file

    def add(self, result: FrameResult) -> None:
        """Add the next frame, which may be empty."""
        for track_id, detection in detections_of(result, self.frame_count):
            values = [*detection[:4], detection.box.tolist(), detection.probabilities.tolist()]
            self._file.write(json.dumps([track_id, *values]).encode() + b"\n")
        self.frame_count += 1

    def write(self, target: TextIO, video_id: int, category_ids: Sequence[int]) -> int:
        """Write the text of `json.dumps(VideoTracks.finish(…))` to a file; return the number of tracks.

        Needs about 50 bytes of memory per detection, and one track without its masks.
        """
        tracks = self._places()
        target.write("[")
        for number, (track_id, places) in enumerate(tracks.items()):
            target.write(", " * (number > 0))
            label, score = judge(self._without_masks(places), self.frame_count, self.options)
            record = TrackRecord(
                video_id=video_id,
                track_id=track_id,
                category_id=category_ids[label],
                score=score,
                segmentations=[],
            )
            target.write(json.dumps(record).removesuffix("]}"))
            masks = segmentations(self._detections(places), self.frame_count, self.options.fill_gaps)
            for index, rle in enumerate(masks):
                target.write(", " * (index > 0) + json.dumps(rle))
            target.write("]}")
        target.write("]")
        return len(tracks)

    def _without_masks(self, places: Iterable[int]) -> Track:
        """Return the track whose detections are at `places`, without masks and boxes."""
        track = Track()
        for detection in self._detections(places):
            track.add(detection._replace(rle=NO_MASK, box=NO_BOX))
        return track

    def _places(self) -> dict[int, np.ndarray]:
        """Return {track id: positions of its detections in the file}, in order of the ids."""
        ids, places, place = array("q"), array("q"), 0
        self._file.seek(0)
        for line in self._file:
            ids.append(int(line[1 : line.index(b",")]))
            places.append(place)
            place += len(line)
        order = np.argsort(ids, kind="stable")
        tracks, starts = np.unique(np.asarray(ids)[order], return_index=True)
        return dict(zip(tracks.tolist(), np.split(np.asarray(places)[order], starts[1:])))

    def _detections(self, places: Iterable[int]) -> Iterator[Detection]:
        """Yield the detections at positions `places` of the file."""
        for place in places:
            self._file.seek(place)
            _, frame, label, score, rle, box, probabilities = json.loads(self._file.readline())
            yield Detection(
                frame, label, score, rle, np.array(box, np.float32), np.array(probabilities, np.float32)
            )
