"""What `track.py` does: one video in; overlay video, tracks and detections of every frame out."""

import contextlib
import time
from collections import deque
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from masktrack_jax.data.images import resize_image
from masktrack_jax.inference.resume import Record
from masktrack_jax.runtime.signals import Interruption, exit_status
from masktrack_jax.video.live import open_source
from masktrack_jax.video.overlay import draw_tracks, overlay_scale
from masktrack_jax.video.parts import PartWriter


@dataclass(frozen=True)
class Summary:
    """What a run of `track_video` did: numbers of frames and tracks, and the seconds it took.

    start: seconds to the first result, compilation included; at_once: frames of which that is true, a batch;
    before: frames that were there already; dropped: those of a live source that were not looked at.
    """

    frames: int
    tracks: int
    seconds: float
    start: float
    at_once: int
    before: int = 0
    dropped: int = 0

    def __str__(self):
        before = f" ({self.before} from before)" * (self.before > 0)
        dropped = f" and {self.dropped} dropped" * (self.dropped > 0)
        text = f"{self.frames} frames{before}{dropped}, {self.tracks} tracks, {self.seconds:.1f} s"
        now = self.frames - self.before
        if now <= self.at_once:
            return text
        speed = (now - self.at_once) / max(self.seconds - self.start, 1e-9)
        return f"{text}: {self.start:.1f} s to the first frame, then {speed:.1f} frames/s"


def track_video(segmenter, input_path, output_dir, draw_threshold=0.0, drop_frames=False, network=None):
    """Track a video's objects; return a `Summary`.

    segmenter: a `VideoSegmenter`; input_path: a video file, a folder of frames or a live source, see
    `live.open_source`; draw_threshold: least score of what the overlay shows; drop_frames: look at the latest
    frame of a live source only, one at a time; network: {name: of what the segmenter's `predict` was made and
    where it runs}, for JSON.
    Writes to `output_dir`: `overlay.mp4`; `results.json`, a list of tracks as in YouTube-VIS results, with
    `track_id`; and `frames.jsonl`, a line a frame with boxes (x1, y1, x2, y2 in pixels), scores, category_ids
    and track_ids. All three appear at the end; until then `output_dir/partial` holds what there is (see
    `record.Record`), and after a break or an error the same call goes on with it. At Ctrl-C or SIGTERM the
    three are made in there of the frames so far, and SystemExit is raised; a live source is then at its end.
    Raises `UserError` for unreadable input, for an output folder that cannot be written to, and for one with
    the frames of another run.
    """
    source = open_source(input_path, drop_frames)
    settings = {**segmenter.settings, "draw_threshold": draw_threshold}
    run = {"input": source.fingerprint(), "settings": settings, **(network or {})}
    with (
        contextlib.closing(source) if source.live else contextlib.nullcontext(),
        Interruption() as interruption,
        Record(output_dir, run, segmenter.tracks, source.live) as record,
    ):
        before, started = record.frames, time.perf_counter()
        if before:
            print(f"{record.folder}: goes on after {before} frames")
        results = _one_by_one if drop_frames else _in_batches
        results = results(segmenter, source, record, interruption)
        first = _record_all(segmenter, source, record, results, draw_threshold, interruption) or started
        cut_short = interruption.signal is not None and not source.live
        tracks = record.write_results(segmenter.category_ids, source.fps)
        seconds, size = time.perf_counter() - started, 1 if drop_frames else segmenter.frames_per_call
        dropped = source.dropped if source.live else 0
        summary = Summary(record.frames, tracks, seconds, first - started, size, before, dropped)
        if cut_short:
            name = interruption.signal.name
            print(f"{name}: {record.folder} holds what was done, {summary}; the same command goes on")
            raise SystemExit(exit_status(interruption.signal))
        record.finish()
    return summary


def _in_batches(segmenter, source, record, interruption):
    """Yield number, frame and `FrameResult` of each frame after those of the record."""
    waiting = deque()  # frames whose result is not there yet: at most three batches

    def remembered():
        if source.live:
            numbered = source.numbered(interruption)
        else:
            numbered = enumerate(source.frames(record.frames), record.frames)
        for number, frame in numbered:
            waiting.append((number, frame))
            yield frame

    for result in segmenter.stream(remembered(), record.state):
        yield *waiting.popleft(), result


def _one_by_one(segmenter, source, record, interruption):
    """Yield number, frame and `FrameResult` of a live source's frames, each before the next one is taken."""
    segmenter.reset()
    for number, frame in source.numbered(interruption):
        yield number, frame, segmenter.step(frame)


def _record_all(segmenter, source, record, results, draw_threshold, interruption):
    """Put results into the record, with the overlay, and save it now and then, and at the end.

    A signal ends it after the batch in which it comes; a live source has ended by itself. Returns the time
    (of `time.perf_counter`) of the first result; None if there was none.
    """
    first, scale = None, overlay_scale(source.height, source.width)
    size = source.height * scale, source.width * scale
    with (
        PartWriter(record.folder, source.fps, *size) as overlay,
        tqdm(total=source.length, initial=record.frames, unit="frame", disable=None) as progress,
    ):
        for number, frame, result in results:
            first = first or time.perf_counter()
            drawn = _draw(frame, result, segmenter.names, draw_threshold, scale)
            if drawn.shape[:2] != size:  # a frame that differs from the first
                drawn = resize_image(drawn, *size)
            overlay.write(drawn, number)
            record.add(result, frame_record(replace(result, index=number), segmenter.category_ids))
            progress.update()
            if record.frames % segmenter.frames_per_call == 0:  # where `stream` can go on
                if interruption.signal is not None and not source.live:
                    break
                if record.due:
                    overlay.cut()
                    record.save(segmenter.state())
    record.save(segmenter.state())
    return first


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
