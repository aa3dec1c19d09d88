"""Track the objects of one video and write an overlay video, tracks and detections (`track.py`)."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from signal import Signals
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from masktrack_jax.inference.progress import RESULTS, Progress
from masktrack_jax.inference.segmenter import VideoSegmenter
from masktrack_jax.masks.rle import decode_masks
from masktrack_jax.runtime.errors import UserError, printable
from masktrack_jax.runtime.signals import Interruption, exit_status
from masktrack_jax.tracking.tracks import FrameResult
from masktrack_jax.video.images import resize_image
from masktrack_jax.video.live import LiveSource, open_source
from masktrack_jax.video.overlay import draw_tracks, overlay_scale
from masktrack_jax.video.parts import PartWriter
from masktrack_jax.video.stored import StoredVideo
from masktrack_jax.video.waiting import LIMIT


@dataclass(frozen=True)
class Summary:
    """A summary of a run of `track_video`: numbers of frames and tracks, and seconds.

    start: seconds until the first result, with compilation. at_once: frames that are ready then, one batch.
    before: frames processed by an earlier run. dropped: frames of a live source that were skipped.
    """

    frames: int
    tracks: int
    seconds: float
    start: float
    at_once: int
    before: int = 0
    dropped: int = 0

    def __str__(self) -> str:
        before = f" ({self.before} from an earlier run)" * (self.before > 0)
        dropped = f" and {self.dropped} dropped" * (self.dropped > 0)
        text = f"{self.frames} frames{before}{dropped}, {self.tracks} tracks, {self.seconds:.1f} s"
        now = self.frames - self.before
        if now <= self.at_once:
            return text
        speed = (now - self.at_once) / max(self.seconds - self.start, 1e-9)
        return f"{text}: {self.start:.1f} s to the first frame, then {speed:.1f} frames/s"


def track_video(
    segmenter: VideoSegmenter,
    input_path: str | Path,
    output_dir: str | Path,
    *,
    draw_threshold: float = 0.0,
    drop_frames: bool = False,
    limit: float = LIMIT,
    network: Mapping[str, Any] | None = None,
) -> Summary:
    """Track the objects of a video.

    Writes `overlay.mp4`; `results.json`, a list of tracks as in YouTube-VIS results with `track_id`; and
    `frames.jsonl`, a line per frame with boxes (x1, y1, x2, y2 in pixels), scores, category_ids and
    track_ids. All three appear in `output_dir` at the end. Until then `output_dir/partial` holds the
    `Progress`, and the same call resumes after an interruption or an error. At Ctrl-C or SIGTERM, the three
    files are written there for the frames so far, and SystemExit is raised; a watched process
    (`runtime.signals.watch`) that takes longer ends without them. A live source ends normally at these
    signals.

    Args:
      segmenter: must have a detector.
      input_path: a video file, a folder of frames or a live source, see `video.live.open_source`.
      output_dir: created if it does not exist.
      draw_threshold: lowest score of the detections on the overlay.
      drop_frames: process only the latest frame of a live source, one at a time.
      limit: the longest time in seconds to wait for a frame or an answer of the disk.
      network: identifies the segmenter's `predict` by its checkpoint and device, as a dict for JSON. A run
        with another network is not resumed.
    Raises:
      UserError: the input cannot be read, the output folder cannot be written to, or it holds the progress
        of another run.
    """
    source = open_source(input_path, drop_frames, limit)
    live = source if isinstance(source, LiveSource) else None
    for name in RESULTS:
        if not live and os.path.realpath(input_path) == os.path.realpath(Path(output_dir) / name):
            raise UserError(f"{input_path}: would be replaced by the results; give another --output")
    settings = {**segmenter.settings, "draw_threshold": draw_threshold}
    made_by = {"input": source.fingerprint(), "settings": settings, **(network or {})}
    with (
        contextlib.closing(live) if live else contextlib.nullcontext(),
        Progress(output_dir, made_by, segmenter.tracks, live is not None) as progress,
        Interruption(unsaved=lambda: _unsaved(progress) if live else "") as interruption,
    ):
        before, started = progress.frames, time.perf_counter()
        if before:
            print(printable(f"{progress.folder}: resumes after {before} frames"))
        run = _Run(segmenter, source, progress, interruption)
        results = run.one_by_one(live) if live and drop_frames else run.in_batches()
        first = run.record(results, draw_threshold) or started
        signal = run.stopped_by
        tracks = progress.write_results(segmenter.category_ids, source.fps)
        summary = Summary(
            frames=progress.frames,
            tracks=tracks,
            seconds=time.perf_counter() - started,
            start=first - started,
            at_once=1 if drop_frames else segmenter.frames_per_call,
            before=before,
            dropped=live.dropped if live else 0,
        )
        if signal is not None:
            held = f"{progress.folder} holds {summary}"
            print(printable(f"{signal.name}: {held}; the same command resumes"))
            raise SystemExit(exit_status(signal))
        progress.finish()
    return summary


def _unsaved(progress: Progress) -> str:
    """What a signal must not cut off: the results of a live source, whose frames never come again."""
    return f"writes the results of {progress.frames} frames" if progress.frames else ""


class _Tracked(NamedTuple):
    """A frame, its number in the source, and its result."""

    number: int
    frame: np.ndarray
    result: FrameResult


@dataclass(frozen=True)
class _Run:
    """One run of `track_video`."""

    segmenter: VideoSegmenter
    source: StoredVideo | LiveSource
    progress: Progress
    interruption: Interruption

    @property
    def stopped_by(self) -> Signals | None:
        """The signal that interrupts the run, if any. For a live source a signal is the normal end."""
        return None if isinstance(self.source, LiveSource) else self.interruption.signal

    def in_batches(self) -> Iterator[_Tracked]:
        """Yield the frames that the progress does not have yet."""
        waiting: deque[tuple[int, np.ndarray]] = deque()  # frames without a result yet, at most three batches

        def remembered() -> Iterator[np.ndarray]:
            numbered: Iterator[tuple[int, np.ndarray]]
            if isinstance(self.source, LiveSource):
                numbered = self.source.numbered(self.interruption)
            else:
                start = self.progress.frames
                numbered = enumerate(self.source.frames(start), start)
            for number, frame in numbered:
                waiting.append((number, frame))
                yield frame

        for result in self.segmenter.stream(remembered(), self.progress.state):
            yield _Tracked(*waiting.popleft(), result)

    def one_by_one(self, live: LiveSource) -> Iterator[_Tracked]:
        """Yield the frames of a live source; each is processed before the next one is read."""
        self.segmenter.reset()
        for number, frame in live.numbered(self.interruption):
            yield _Tracked(number, frame, self.segmenter.step(frame))

    def record(self, tracked: Iterator[_Tracked], draw_threshold: float) -> float | None:
        """Add frames to the progress and draw the overlay. Saves whenever `Progress.due`, and at the end.

        Stops after the current batch if a signal arrives. Returns the time (of `time.perf_counter`) of the
        first result, or None without results.
        """
        segmenter, progress = self.segmenter, self.progress
        first, scale = None, overlay_scale(self.source.height, self.source.width)
        size = self.source.height * scale, self.source.width * scale
        with (
            PartWriter(progress.folder, self.source.fps, *size) as overlay,
            tqdm(total=self.source.length, initial=progress.frames, unit="frame", disable=None) as bar,
        ):
            for number, frame, result in tracked:
                first = first or time.perf_counter()
                drawn = _draw(frame, result, segmenter.names, draw_threshold, scale)
                if drawn.shape[:2] != size:  # a frame that differs in size from the first
                    drawn = resize_image(drawn, *size)
                overlay.write(drawn, number)
                progress.add(result, frame_record(replace(result, index=number), segmenter.category_ids))
                bar.update()
                if progress.frames % segmenter.frames_per_call == 0:  # where `stream` can resume
                    if self.stopped_by is not None:
                        break
                    if progress.due:
                        overlay.cut()
                        progress.save(segmenter.state())
        progress.save(segmenter.state())
        return first


def _draw(
    frame: np.ndarray, result: FrameResult, names: Sequence[str], threshold: float, scale: int
) -> np.ndarray:
    """Draw the detections with a score of at least `threshold` on a frame."""
    shown = np.flatnonzero(result.scores >= threshold)
    return draw_tracks(
        frame,
        decode_masks([result.rles[i] for i in shown], *frame.shape[:2]),
        result.boxes[shown],
        [names[result.labels[i]] for i in shown],
        result.track_ids[shown],
        result.scores[shown],
        scale,
    )


def frame_record(result: FrameResult, category_ids: Sequence[int]) -> dict[str, Any]:
    """Return a frame as a line of `frames.jsonl`: a dict of plain lists."""
    return {
        "frame": result.index,
        "boxes": np.round(result.boxes.astype(float), 2).tolist(),
        "scores": np.round(result.scores.astype(float), 4).tolist(),
        "category_ids": [category_ids[label] for label in result.labels],
        "track_ids": result.track_ids.tolist(),
    }
