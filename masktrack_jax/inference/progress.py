"""Progress of a tracking run on disk: readable while it runs, resumable, turned into results at the end."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import stat
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from masktrack_jax.inference.tracks_on_disk import StoredTracks
from masktrack_jax.runtime.errors import UserError, printable
from masktrack_jax.runtime.files import whole
from masktrack_jax.runtime.lock import NAME, folder_lock
from masktrack_jax.tracking.tracks import FrameResult, TrackOptions
from masktrack_jax.video.decode import reason
from masktrack_jax.video.parts import join_parts, parts_of
from masktrack_jax.video.stored import content_digest

VIDEO_ID = 1  # the id of the only video in a results file
RESULTS = ("overlay.mp4", "results.json", "frames.jsonl")
PART_BLOCKS = 64  # of a part of the overlay for its digest
DIGEST_BYTES = 32  # of the SHA-256 at the end of state.npz, behind the bytes that it covers
SAVE_FRAMES, SAVE_SECONDS = 100, 60  # `Progress.due` after this many frames or seconds since the last save


class Progress:
    """The folder `partial` of an output folder, which exists until its run is complete.

    It contains `frames.jsonl`, one line per frame; `detections.jsonl`, see `StoredTracks`; the drawn frames,
    see `video.parts`; and `state.npz`, which identifies the run and holds the latest `save` with a digest of
    every file but the drawn frames. As a context manager it creates the folder or resumes an existing one,
    unless that is not its own or holds links. After an error before the first `save` it deletes the folder.
    Only one process may use it at a time.

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
        self._options, self._files, self._lock = options, contextlib.ExitStack(), contextlib.ExitStack()
        self._created: list[Path] = []
        self._saved = 0, time.monotonic()
        self._parts: dict[str, str] = {}  # digests of the finished parts of the overlay

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
        self._check_folders()
        try:
            folders = (self.folder, *self.folder.parents)
            self._created = [folder for folder in folders if not folder.exists()]
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error
        self._lock.enter_context(folder_lock(self.folder, "give another --output"))
        try:
            self._lines, self._detections = map(self._open, ("frames.jsonl", "detections.jsonl"))
            self._resume()
        except OSError as error:
            self._close()
            if self.folder in self._created:  # otherwise it may hold the progress of an earlier run
                self._remove()
            self._lock.close()
            raise self._unwritable(error) from error
        except BaseException:
            self._close()
            self._lock.close()
            raise
        return self

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"{self.output}: output folder cannot be written to ({reason(error)})")

    def _check_folders(self) -> None:
        """Raise a UserError if `partial` was not made by a run, or if files of others would be changed."""
        try:
            linked = self.folder.is_symlink()
            found = (
                {path.name: path.lstat() for path in self.folder.iterdir()} if self.folder.is_dir() else {}
            )
            folders = [name for name in RESULTS if (self.output / name).is_dir()]
        except (OSError, ValueError) as error:
            raise UserError(f"{self.output}: output folder cannot be read ({reason(error)})") from error
        advice = "move or remove it, or give another --output"
        if linked:
            raise UserError(f"{self.folder}: is a link; {advice}")
        if folders:
            raise UserError(f"{self.output / folders[0]}: is a folder; {advice}")
        if found and NAME not in found:
            raise UserError(f"{self.folder}: was not made by a run, but holds {min(found)}; {advice}")
        for name, status in found.items():
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                raise UserError(f"{self.folder / name}: is a link or no file; {advice}")

    def _close(self) -> None:
        """Close the files after an error. Closing retries a failed write, so further errors are ignored."""
        with contextlib.suppress(OSError):
            self._files.close()

    def _open(self, name: str) -> BinaryIO:
        def opener(path: str, flags: int) -> int:
            return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)

        return self._files.enter_context(open(self.folder / name, "a+b", opener=opener))

    def _resume(self) -> None:
        """Read the latest save, and remove everything written after it."""
        frames, sizes = 0, (0, 0)
        self._grown = [_Grown(file) for file in (self._lines, self._detections)]
        if (self.folder / "state.npz").exists():
            about, self.state = self._read_state()
            self._check(about)
            frames, sizes = about["frames"], about["sizes"]
            written = self._digests(sizes)
            for moment, path in parts_of(self.folder):
                if moment < frames and path.name not in about["digests"]:
                    raise UserError(f"{path}: is not of this run; move or remove it")
            for name, digest in about["digests"].items():
                if written.get(name) != digest:
                    how = "is truncated, changed since it was written, or missing"
                    raise UserError(f"{self.folder / name}: {how}; delete {self.folder} to start again")
        for grown, size in zip(self._grown, sizes, strict=True):
            grown.file.truncate(size)
        later = [path for moment, path in parts_of(self.folder) if moment >= frames]
        for path in (*later, *self.folder.glob(".*.partial*"), *map(self.folder.joinpath, RESULTS[:2])):
            path.unlink(missing_ok=True)
            self._parts.pop(path.name, None)
        self._tracks = StoredTracks(self._detections, self._options, frames)
        self._saved = frames, time.monotonic()

    def _read_state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the description of the run that `save` wrote, and its state."""
        path = self.folder / "state.npz"
        try:
            content = path.read_bytes()
            content, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
            if hashlib.sha256(content).digest() != digest:
                raise ValueError("its bytes changed since they were written")
            with np.load(io.BytesIO(content)) as file:
                state = dict(file)
            about = json.loads(str(state.pop("about")))
            numbers = [about["frames"], *about["sizes"]]
            if len(numbers) != 3 or not all(type(number) is int and number >= 0 for number in numbers):
                raise ValueError("its numbers of frames and bytes are none")
            if not all(isinstance(about[name], dict) for name in ("run", "digests")):
                raise ValueError("it describes no run")
            return about, state
        except (
            *(OSError, ValueError, KeyError, TypeError, EOFError, RecursionError),
            zipfile.BadZipFile,
        ) as error:
            raise UserError(
                f"{path}: cannot be read ({reason(error)}); delete {self.folder} to start again"
            ) from None

    def _digests(self, sizes: Sequence[int]) -> dict[str, str]:
        """Digests of files by name: the first `sizes` bytes of those that grow, and the finished parts."""
        for _, path in parts_of(self.folder):
            self._parts[path.name] = self._parts.get(path.name) or content_digest(path, PART_BLOCKS)
        grown = {grown.name: grown.digest(size) for grown, size in zip(self._grown, sizes, strict=True)}
        return grown | self._parts

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
        for file in (self._lines, self._detections):
            file.flush()
            os.fsync(file.fileno())
        sizes = [os.fstat(grown.file.fileno()).st_size for grown in self._grown]
        about = {"run": self._run, "frames": self.frames, "sizes": sizes, "digests": self._digests(sizes)}
        arrays: dict[str, Any] = {"about": json.dumps(about), **state}
        content = io.BytesIO()
        np.savez(content, **arrays)
        with whole(self.folder / "state.npz") as partial, open(partial, "xb") as file:
            file.write(content.getvalue() + hashlib.sha256(content.getvalue()).digest())
            file.flush()
            os.fsync(file.fileno())
        self._saved = self.frames, time.monotonic()

    def write_results(self, category_ids: Sequence[int], fps: float) -> int:
        """Write `results.json` and `overlay.mp4` beside `frames.jsonl`; return the number of tracks."""
        with whole(self.folder / "results.json") as partial, open(partial, "x") as file:
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
        self._lock.close()
        if kept and not issubclass(error_type, SystemExit):
            advice = "" if self._live else "; the same command resumes"
            print(printable(f"{self.folder} keeps {kept} frames{advice}"))
        if isinstance(error, OSError):
            raise UserError(f"{self.output}: cannot be written to ({reason(error)})") from error

    def _remove(self) -> None:
        """Delete the files of the progress, and the folders created for them if they are empty."""
        ours = ("detections.jsonl", "state.npz", *RESULTS, "overlay-*.mp4", ".*.partial*", NAME)
        for path in [path for pattern in ours for path in self.folder.glob(pattern)]:
            path.unlink(missing_ok=True)
        for folder in (self.folder, *self._created):
            with contextlib.suppress(OSError):
                folder.rmdir()
        self._lock.close()


class _Grown:
    """A file opened for reading and appending, and the digest of its first bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.name = file, Path(file.name).name
        self._size, self._digest = 0, hashlib.sha256()

    def digest(self, size: int) -> str:
        """The digest of the first `size` bytes, or of all if there are fewer; `size` never decreases."""
        self.file.seek(self._size)
        while self._size < size and (block := self.file.read(min(size - self._size, 1 << 20))):
            self._digest.update(block)
            self._size += len(block)
        return self._digest.hexdigest()
