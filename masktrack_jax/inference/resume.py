"""What a run of `track.py` has so far, on disk as it comes: to be read, gone on with, and made results of."""

import contextlib
import json
import os
import time
import zipfile
from pathlib import Path

import numpy as np

from masktrack_jax.inference.tracks_on_disk import StoredTracks
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import lock, whole
from masktrack_jax.video.files import reason
from masktrack_jax.video.parts import join_parts, parts_of

VIDEO_ID = 1  # of the only video of a results file
RESULTS = ("overlay.mp4", "results.json", "frames.jsonl")
SAVE_FRAMES, SAVE_SECONDS = 100, 60  # `Record.due` after so many frames, or so long after the last time


class Record:
    """The folder `partial` of an output folder, as long as a run is not at its end.

    It holds `frames.jsonl`, line by line; `detections.jsonl`, see `StoredTracks`; the drawn frames, see
    `video_parts`; and `state.npz`: of what run that is, and what was there at the latest `save`. A context
    manager, which makes the folder, or goes on with the one that is there; after an error without a `save`
    nothing remains of it. Only one process may have it.

    frames: how many there are; state: what was saved after them, {name: array}, None at the start of a run.

    output_dir: where `finish` puts the results; run: all that these depend on, as a dict for JSON, a record
    of other values is refused; options: a `TrackOptions`; live: the input cannot be had again, so that a
    record of it is refused too.
    """

    def __init__(self, output_dir, run, options, live=False):
        self.output, self.folder = Path(output_dir), Path(output_dir) / "partial"
        self.state, self._run, self._live = None, json.loads(json.dumps(run)), live
        self._options, self._files, self._created = options, contextlib.ExitStack(), []
        self._saved = 0, time.monotonic()

    @property
    def frames(self):
        """How many frames there are."""
        return self._tracks.frame_count

    @property
    def due(self):
        """Whether so much is not saved that it should be."""
        frames, moment = self._saved
        return self.frames - frames >= SAVE_FRAMES or time.monotonic() - moment >= SAVE_SECONDS

    def __enter__(self):
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
            self._go_on()
        except BaseException:
            self._close()
            raise
        return self

    def _close(self):
        """Close the files after an error: what they could not write they would try to write once more."""
        with contextlib.suppress(OSError):
            self._files.close()

    def _open(self, name):
        return self._files.enter_context(open(self.folder / name, "a+b"))

    def _go_on(self):
        """Take up what was saved, and take away what came after."""
        frames, sizes = 0, (0, 0)
        if (self.folder / "state.npz").exists():
            about, self.state = self._read_state()
            self._check(about)
            frames, sizes = about["frames"], about["sizes"]
        for file, size in zip((self._lines, self._detections), sizes, strict=True):
            if file.seek(0, os.SEEK_END) < size:
                raise UserError(f"{file.name}: is cut off; delete {self.folder} to begin anew")
            file.truncate(size)
        later = [path for moment, path in parts_of(self.folder) if moment >= frames]
        for path in (*later, *self.folder.glob(".*.partial*"), *map(self.folder.joinpath, RESULTS[:2])):
            path.unlink(missing_ok=True)
        self._tracks = StoredTracks(self._detections, self._options, frames)
        self._saved = frames, time.monotonic()

    def _read_state(self):
        path = self.folder / "state.npz"
        try:
            with np.load(path) as file:
                state = dict(file)
            return json.loads(str(state.pop("about"))), state
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path}: cannot be read ({reason(error)}); delete {self.folder} to begin anew"
            ) from None

    def _check(self, about):
        """Refuse to go on with what another run left."""
        held = f"{self.folder}: holds {about['frames']} frames of"
        advice = "give another --output, or delete it"
        if self._live:
            raise UserError(f"{held} a run that was cut off, and a live source cannot go on; {advice}")
        other = [name for name in self._run if about["run"].get(name) != self._run[name]]
        if other:
            raise UserError(f"{held} a run with other {' and '.join(other)}; {advice} to begin anew")

    def add(self, result, line):
        """Take the next frame's `FrameResult`, and its line of `frames.jsonl` as a dict."""
        self._lines.write(json.dumps(line).encode() + b"\n")
        self._lines.flush()  # for those who watch
        self._tracks.add(result)

    def save(self, state):
        """Have the disk keep what there is; `state`: {name: array} with which a run goes on from here."""
        files = (self._lines, self._detections)
        for file in files:
            file.flush()
            os.fsync(file.fileno())
        sizes = [os.fstat(file.fileno()).st_size for file in files]
        about = json.dumps({"run": self._run, "frames": self.frames, "sizes": sizes})
        with whole(self.folder / "state.npz") as partial, open(partial, "wb") as file:
            np.savez(file, about=about, **state)
            file.flush()
            os.fsync(file.fileno())
        self._saved = self.frames, time.monotonic()

    def write_results(self, category_ids, fps):
        """Write `results.json` and `overlay.mp4`, beside `frames.jsonl`; return the number of tracks."""
        with whole(self.folder / "results.json") as partial, open(partial, "w") as file:
            tracks = self._tracks.write(file, VIDEO_ID, category_ids)
        join_parts(self.folder, self.folder / "overlay.mp4", fps)
        return tracks

    def finish(self):
        """Put the results into the output folder, in place of those that are there."""
        self._files.close()
        for name in RESULTS:
            if name == "frames.jsonl":  # a kill before here costs no frame, the results are made again
                (self.folder / "state.npz").unlink()
            os.replace(self.folder / name, self.output / name)
        self._remove()

    def __exit__(self, error_type, error, traceback):
        if error_type is None:
            return
        self._close()
        kept = self._saved[0]
        if not kept:
            self._remove()
        elif not issubclass(error_type, SystemExit):
            print(f"{self.folder} keeps {kept} frames" + ", the same command goes on" * (not self._live))
        if isinstance(error, OSError):
            raise UserError(f"{self.output}: cannot be written to ({reason(error)})") from error

    def _remove(self):
        """Take away our files, and the folders that were made for them and hold no others."""
        ours = ("detections.jsonl", "state.npz", *RESULTS, "overlay-*.mp4", ".*.partial*")
        for path in [path for pattern in ours for path in self.folder.glob(pattern)]:
            path.unlink(missing_ok=True)
        for folder in (self.folder, *self._created):
            with contextlib.suppress(OSError):
                folder.rmdir()
