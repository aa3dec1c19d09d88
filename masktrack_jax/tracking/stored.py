"""As `tracks.VideoTracks`, with the detections in a file, so that memory does not grow with the video."""

import json
from array import array

import numpy as np

from masktrack_jax.tracking.tracks import Track, finished


class StoredTracks:
    """Collects the tracked detections of one video in a file and makes tracks of it, one at a time.

    file: opened for reading, and writing in binary at its end; it may hold the detections of `frame_count`
    frames. A line is a JSON list: track id, then frame, label, score, RLE, box and probabilities.
    """

    def __init__(self, file, options, frame_count=0):
        self.options, self.frame_count = options, frame_count
        self._file = file

    def add(self, result):
        """Take the next frame's `FrameResult`; it may be empty."""
        rows = zip(
            result.track_ids.tolist(),
            result.labels.tolist(),
            result.scores.tolist(),
            result.rles,
            result.boxes.tolist(),
            result.probabilities.tolist(),
        )
        for track_id, *rest in rows:
            self._file.write(json.dumps([track_id, self.frame_count, *rest]).encode() + b"\n")
        self.frame_count += 1

    def write(self, target, video_id, category_ids):
        """Write to a text file what `json.dumps(VideoTracks.finish(…))` gives; return the number of tracks.

        Memory: one track with its masks, and about 32 bytes a detection.
        """
        tracks = self._places()
        target.write("[")
        for number, places in enumerate(tracks):
            track_id, track = self._read(places)
            record = finished(track, track_id, self.frame_count, category_ids, self.options)
            target.write(", " * (number > 0) + json.dumps({"video_id": video_id, **record}))
        target.write("]")
        return len(tracks)

    def _places(self):
        """For each track, in order of their ids, where in the file its detections are."""
        ids, places, place = array("q"), array("q"), 0
        self._file.seek(0)
        for line in self._file:
            ids.append(int(line[1 : line.index(b",")]))
            places.append(place)
            place += len(line)
        if not ids:
            return []
        ids, places = np.frombuffer(ids, np.int64), np.frombuffer(places, np.int64)
        order = np.argsort(ids, kind="stable")
        return np.split(places[order], np.flatnonzero(np.diff(ids[order])) + 1)

    def _read(self, places):
        """The id and the `Track` of the detections at `places`."""
        track = Track()
        for place in places:
            self._file.seek(place)
            track_id, frame, label, score, rle, *arrays = json.loads(self._file.readline())
            track.add(frame, label, score, rle, *(np.array(values, np.float32) for values in arrays))
        return track_id, track
