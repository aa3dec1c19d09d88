"""What `track.py` does: one video in; overlay video, tracks and detections of every frame out."""

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from masktrack_jax.data.images import resize_image
from masktrack_jax.errors import UserError
from masktrack_jax.interruption import Interruption
from masktrack_jax.tracking.tracks import VideoTracks
from masktrack_jax.video import VideoWriter, open_video
from masktrack_jax.visualization import draw_tracks, overlay_scale

VIDEO_ID = 1  # of the only video of a results file


@dataclass(frozen=True)
class Summary:
    """What a run of `track_video` did: numbers of frames and tracks, and the seconds it took.

    start: seconds to the first result, compilation included; at_once: frames of which that is true, a batch.
    """

    frames: int
    tracks: int
    seconds: float
    start: float
    at_once: int

    def __str__(self):
        text = f"{self.frames} frames, {self.tracks} tracks, {self.seconds:.1f} s"
        if self.frames <= self.at_once:
            return text
        speed = (self.frames - self.at_once) / max(self.seconds - self.start, 1e-9)
        return f"{text}: {self.start:.1f} s to the first frame, then {speed:.1f} frames/s"


def track_video(segmenter, input_path, output_dir, draw_threshold=0.0):
    """Track a video's objects; return a `Summary`.

    segmenter: a `VideoSegmenter`; input_path: a video file or a folder of frames; draw_threshold: least score
    of what the overlay shows. Writes to `output_dir`:
    `overlay.mp4`; `results.json`, a list of tracks as in YouTube-VIS results, with `track_id`; and
    `frames.jsonl`, a line a frame with boxes (x1, y1, x2, y2 in pixels), scores, category_ids and track_ids.
    All three appear together at the end; on an error none does. At Ctrl-C or SIGTERM they appear for the
    frames so far, and SystemExit is raised. Raises `UserError` for unreadable input and for an output folder
    that cannot be written to.
    """
    video = open_video(input_path)
    with Interruption() as interruption:
        with staging_folder(output_dir) as staging:
            started = time.perf_counter()
            tracks, first = _write_frames(segmenter, video, staging, draw_threshold, interruption)
            records = tracks.finish(VIDEO_ID, segmenter.category_ids)
            (staging / "results.json").write_text(json.dumps(records))
        seconds, size = time.perf_counter() - started, segmenter.frames_per_call
        summary = Summary(tracks.frame_count, len(records), seconds, first - started, size)
        if interruption.signal is not None:
            print(f"{interruption.signal.name}: {output_dir} holds what was done, {summary}")
            raise SystemExit(interruption.status)
    return summary


def _write_frames(segmenter, video, folder, draw_threshold, interruption):
    """Write `overlay.mp4` and `frames.jsonl` while the video streams through.

    Ends after the frame during which a signal comes. Returns its `VideoTracks` and the time (of
    `time.perf_counter`) when the first result was there.
    """
    scale = overlay_scale(video.height, video.width)
    waiting = deque()  # frames whose result is not there yet: at most three batches

    def remembered():
        for frame in video.frames():
            waiting.append(frame)
            yield frame

    tracks, first = VideoTracks(segmenter.tracks), None
    with (
        VideoWriter(folder / "overlay.mp4", video.fps, video.height * scale, video.width * scale) as overlay,
        open(folder / "frames.jsonl", "w") as lines,
        tqdm(total=video.length, unit="frame", disable=None) as progress,
    ):
        for result in segmenter.stream(remembered()):
            first = first or time.perf_counter()
            tracks.add(result)
            lines.write(json.dumps(frame_record(result, segmenter.category_ids)) + "\n")
            drawn = _draw(waiting.popleft(), result, segmenter.names, draw_threshold, scale)
            if drawn.shape[:2] != (overlay.height, overlay.width):  # a frame that differs from the first
                drawn = resize_image(drawn, overlay.height, overlay.width)
            overlay.write(drawn)
            progress.update()
            if interruption.signal is not None:
                break
    return tracks, first or time.perf_counter()


def _draw(frame, result, names, threshold, scale):
    """The frame with those detections of a `FrameResult` that score at least `threshold`."""
    shown = np.flatnonzero(result.scores >= threshold)
    return draw_tracks(
        frame,
        [result.rles[i] for i in shown],
        result.boxes[shown],
        [names[result.labels[i]] for i in shown],
        result.track_ids[shown],
        result.scores[shown],
        scale,
    )


def frame_record(result, category_ids):
    """Return a `FrameResult` as a line of `frames.jsonl`: a dict of plain lists."""
    return {
        "frame": result.index,
        "boxes": np.round(result.boxes.astype(float), 2).tolist(),
        "scores": np.round(result.scores.astype(float), 4).tolist(),
        "category_ids": [category_ids[label] for label in result.labels],
        "track_ids": result.track_ids.tolist(),
    }


@contextlib.contextmanager
def staging_folder(output_dir):
    """Give a folder whose files move to `output_dir` when the block ends well; else nothing remains.

    Creates `output_dir` where it is missing, and takes it away again after an error.
    """
    output_dir = Path(output_dir)
    created = [folder for folder in (output_dir, *output_dir.parents) if not folder.exists()]
    staging = None
    try:
        try:
            output_dir.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=".partial-", dir=output_dir))
        except OSError as error:
            raise UserError(f"{output_dir}: output folder cannot be written to ({error.strerror})") from error
        yield staging
        for file in sorted(staging.iterdir()):
            os.replace(file, output_dir / file.name)
        staging.rmdir()
    except BaseException as error:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
        for folder in created:
            with contextlib.suppress(OSError):  # not ours alone any more
                folder.rmdir()
        if isinstance(error, OSError):
            raise UserError(f"{output_dir}: cannot be written to ({error.strerror or error})") from error
        raise
