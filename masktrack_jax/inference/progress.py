"""Progress of a tracking run on disk: readable while it runs, resumable, turned into results at the end."""

from __future__ import annotations

import contextlib
import json
import os
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from masktrack_jax.inference.tracks_on_disk import StoredTracks
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import lock, whole
from masktrack_jax.tracking.tracks import FrameResult, TrackOptions
from masktrack_jax.video.decode import reason
from masktrack_jax.video.parts import join_parts, parts_of

VIDEO_ID = 1  # the id of the only video in a results file
RESULTS = ("overlay.mp4", "results.json", "frames.jsonl")
SAVE_FRAMES, SAVE_SECONDS = 100, 60  # `Progress.due` after this many frames or seconds since the last save


class Progress:
    """The folder `partial` of an output folder, which exists until its run is complete.

    It contains `frames.jsonl`, one line per frame; `detections.jsonl`, see `StoredTracks`; the drawn frames,
    see `video.parts`; and `state.npz`, which identifies the run and holds the latest `save`. As a context
    manager it creates the folder or resumes an existing one. After an error before the first `save` it
    deletes the folder. Only one process may use it at a time.

    Attributes:
      frames: the number of frames so far.
      state: the argument of the latest `save`, {name: array}; None at the start of a run.

    Args:
      output_dir: folder to which `finish` moves the results.
      run: all values that the results depend on, as a dict for JSON. A run with other values is not resumed.
      options: options of the tracks.
      live: the input cannot be read twice, so an unfinished run is not resumed.
    """

    def __init__(
        self,
        output_dir: str | Path,
        run: Mapping[str, Any],
        options: TrackOptions,
        live: bool = False,
    ) -> None:
        self.output, self.folder = Path(output_dir), Path(output_dir) / "partial"
        self.state: dict[str, np.ndarray] | None = None
        self._run, self._live = json.loads(json.dumps(run)), live
        self._options, self._files = options, contextlib.ExitStack()
        self._created: list[Path] = []
        self._saved = 0, time.monotonic()

    @property
    def frames(self) -> int:
        """The number of frames added, with those of earlier runs."""
        return self._tracks.frame_count

    @property
    def due(self) -> bool:
        """Whether it is time to `save`."""
        frames, moment = self._saved
        return self.frames - frames >= SAVE_FRAMES or time.monotonic() - moment >= SAVE_SECONDS

    def __enter__(self) -> Progress:
        folders = (self.folder, *self.folder.parents)
        self._created = [folder for folder in folders if not folder.exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lines, self._detections = map(self._open, ("frames.jsonl", "detections.jsonl"))
        except OSError as error:
            self._remove()
            raise UserError(
                f"{self.output}: output folder cannot be written to ({error.strerror})"
            ) from error
        try:
            lock(self._lines, f"{self.folder}: another run is writing it; give another --output")
            self._resume()
        except BaseException:
            self._close()
            raise
        return self

    def _close(self) -> None:
        """Close the files after an error. Closing retries a failed write, so further errors are ignored."""
        with contextlib.suppress(OSError):
            self._files.close()

    def _open(self, name: str) -> BinaryIO:
        return self._files.enter_context(open(self.folder / name, "a+b"))

    def _resume(self) -> None:
        """Read the latest save, and remove everything written after it."""
        frames, sizes = 0, (0, 0)
        if (self.folder / "state.npz").exists():
            about, self.state = self._read_state()
            self._check(about)
            frames, sizes = about["frames"], about["sizes"]
        for file, size in zip((self._lines, self._detections), sizes, strict=True):
            if file.seek(0, os.SEEK_END) < size:
                raise UserError(f"{file.name}: is truncated; delete {self.folder} to start again")
            file.truncate(size)
        later = [path for moment, path in parts_of(self.folder) if moment >= frames]
        for path in (*later, *self.folder.glob(".*.partial*"), *map(self.folder.joinpath, RESULTS[:2])):
            path.unlink(missing_ok=True)
        self._tracks = StoredTracks(self._detections, self._options, frames)
        self._saved = frames, time.monotonic()

    def _read_state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the description of the run that `save` wrote, and its state."""
        path = self.folder / "state.npz"
        try:
            with np.load(path) as file:
                state = dict(file)
            return json.loads(str(state.pop("about"))), state
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path}: cannot be read ({reason(error)}); delete {self.folder} to start again"
            ) from None

    def _check(self, about: dict[str, Any]) -> None:
        """Raise a UserError if the progress belongs to another run."""
        held = f"{self.folder}: holds {about['frames']} frames of"
        advice = "give another --output, or delete it"
        if self._live:
            raise UserError(f"{held} an unfinished run, and a live source cannot be resumed; {advice}")
        other = [name for name in self._run if about["run"].get(name) != self._run[name]]
        if other:
            raise UserError(f"{held} a run with other {' and '.join(other)}; {advice} to start again")

    def add(self, result: FrameResult, line: Mapping[str, Any]) -> None:
        """Add the next frame and its line of `frames.jsonl`, a dict for JSON."""
        self._lines.write(json.dumps(line).encode() + b"\n")
        self._lines.flush()  # so that the file can be followed while it grows
        self._tracks.add(result)

    def save(self, state: Mapping[str, np.ndarray]) -> None:
        """Write all progress to disk; the run can resume here from `state`, {name: array}."""
        files = (self._lines, self._detections)
        for file in files:
            file.flush()
            os.fsync(file.fileno())
        sizes = [os.fstat(file.fileno()).st_size for file in files]
        about = json.dumps({"run": self._run, "frames": self.frames, "sizes": sizes})
        arrays: dict[str, Any] = {"about": about, **state}
        with whole(self.folder / "state.npz") as partial, open(partial, "wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        self._saved = self.frames, time.monotonic()

    def write_results(self, category_ids: Sequence[int], fps: float) -> int:
        """Write `results.json` and `overlay.mp4` beside `frames.jsonl`; return the number of tracks."""
        with whole(self.folder / "results.json") as partial, open(partial, "w") as file:
            tracks = self._tracks.write(file, VIDEO_ID, category_ids)
        join_parts(self.folder, self.folder / "overlay.mp4", fps)
        return tracks

    def finish(self) -> None:
        """Move the results to the output folder, where they replace earlier results."""
        self._files.close()
        for name in RESULTS:
            if name == "frames.jsonl":  # killed before this, a run resumes and writes its results again
                (self.folder / "state.npz").unlink()
            os.replace(self.folder / name, self.output / name)
        self._remove()

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error_type is None:
            return
        self._close()
        kept = self._saved[0]
        if not kept:
            self._remove()
        elif not issubclass(error_type, SystemExit):
            advice = "" if self._live else "; the same command resumes"
            print(f"{self.folder} keeps {kept} frames{advice}")
        if isinstance(error, OSError):
            raise UserError(f"{self.output}: cannot be written to ({reason(error)})") from error

    def _remove(self) -> None:
        """Delete the files of the progress, and the folders created for them if they are empty."""
        ours = ("detections.jsonl", "state.npz", *RESULTS, "overlay-*.mp4", ".*.partial*")
        for path in [path for pattern in ours for path in self.folder.glob(pattern)]:
            path.unlink(missing_ok=True)
        for folder in (self.folder, *self._created):
            with contextlib.suppress(OSError):
                folder.rmdir()
