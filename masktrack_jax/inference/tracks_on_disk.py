"""As `tracks.VideoTracks`, with the detections in a file, so that memory does not grow with the video."""

import json
from array import array

import numpy as np

from masktrack_jax.tracking.tracks import Track, judged, segmentations


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

        Memory: about 50 bytes a detection, and a track without its masks.
        """
        tracks = self._places()
        target.write("[")
        for number, (track_id, places) in enumerate(tracks.items()):
            target.write(", " * (number > 0))
            self._write_track(target, track_id, places, video_id, category_ids)
        target.write("]")
        return len(tracks)

    def _write_track(self, target, track_id, places, video_id, category_ids):
        track = Track()
        for _, frame, label, score, _, _, probabilities in self._detections(places):
            track.add(frame, label, score, None, None, np.array(probabilities, np.float32))
        head = judged(video_id, track_id, track, self.frame_count, category_ids, self.options)
        target.write(json.dumps(head)[:-1] + ', "segmentations": [')
        rows = self._detections(places)
        sights = ((frame, rle, np.array(box, np.float32)) for _, frame, _, _, rle, box, _ in rows)
        for index, rle in enumerate(segmentations(sights, self.frame_count, self.options.fill_gaps)):
            target.write(", " * (index > 0) + ("null" if rle is None else json.dumps(rle)))
        target.write("]}")

    def _places(self):
        """{track id: where in the file its detections are}, in order of the ids."""
        ids, places, place = array("q"), array("q"), 0
        self._file.seek(0)
        for line in self._file:
            ids.append(int(line[1 : line.index(b",")]))
            places.append(place)
            place += len(line)
        order = np.argsort(ids, kind="stable")
        tracks, starts = np.unique(np.asarray(ids)[order], return_index=True)
        return dict(zip(tracks.tolist(), np.split(np.asarray(places)[order], starts[1:])))

    def _detections(self, places):
        """Yield the detections at `places`, as lists."""
        for place in places:
            self._file.seek(place)
            yield json.loads(self._file.readline())
