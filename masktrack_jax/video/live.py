"""Frames of cameras, pipes and network streams, read by a thread that buffers a single frame."""

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import av
import cv2
import numpy as np

from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.signals import Interruption
from masktrack_jax.video.decode import Decoding, candidates, open_address, open_bytes, rate, reason, warn
from masktrack_jax.video.files import open_video
from masktrack_jax.video.stored import StoredVideo, stat_of
from masktrack_jax.video.waiting import LIMIT, Handover, answer, silent

CAMERA_FPS = 30.0  # for a camera that does not state its rate
CAMERAS = 1000  # more than any computer has; OpenCV takes larger numbers for other kinds of devices
Opened = tuple[Iterator[np.ndarray], float]  # frames, and their rate


def open_source(
    name: str | Path, drop_frames: bool = False, limit: float = LIMIT
) -> "StoredVideo | LiveSource":
    """Open a live source or a stored video.

    `name` is "-" for the standard input, in any format that FFmpeg reads; the path of a video, a folder of
    images or a named pipe, whatever it is called; a URL, such as rtsp://…; or the number of a camera.
    `drop_frames` is `drop` of `LiveSource`. Raises `UserError` if the source cannot be opened, if it gives no
    frame for `limit` seconds, or if `drop_frames` is set for a file.
    """
    name = str(name)
    if name == "-":
        return LiveSource("standard input", *_open_pipe(0, "standard input", limit), drop_frames, limit)
    found = answer(limit, name, lambda: stat_of(Path(name)))
    if found is None and name.startswith("file://"):
        name = _path_of(name)
        found = answer(limit, name, lambda: stat_of(Path(name)))
    elif found is None and "://" in name:
        return LiveSource(name, *_open_stream(name, limit), drop_frames, limit)
    if found is None and name.isdecimal() and name.isascii():
        return LiveSource(f"camera {name}", *_open_camera(name, limit), drop_frames, limit)
    if found is not None and stat.S_ISFIFO(found.st_mode):
        return LiveSource(name, *_open_pipe(name, name, limit), drop_frames, limit)
    if drop_frames:
        raise UserError(f"{name}: frames of a file are never dropped; leave out --drop_frames")
    return open_video(name, limit)


def _path_of(url: str) -> str:
    """The path of a file:// URL, in which %20 may stand for a space."""
    path = "/" + url.removeprefix("file://").removeprefix("localhost").lstrip("/")
    return path if os.path.lexists(path) else unquote(path)


class LiveSource:
    """A source with its own frame rate, read by a separate thread.

    The constructor waits for the first frame and raises `UserError` if there is none. If the source fails or
    falls silent later, its frames end there and the error is logged.

    Args:
      name: used in messages.
      frames: iterator over (H, W, 3) uint8 RGB, which may block.
      fps: frames per second, as the source states them.
      drop: replace a frame that was not taken by the next one, and count it in `dropped`. Otherwise the
        thread waits until the frame is taken, and so does the source if it can.
      limit: the longest time in seconds to wait for a frame.
    Attributes:
      height, width: size of the first frame.
      length: None.
      live: True.
    """

    height: int
    width: int
    live, length = True, None

    def __init__(
        self, name: str, frames: Iterator[np.ndarray], fps: float, drop: bool = False, limit: float = LIMIT
    ) -> None:
        self.name, self.fps, self._limit = name, fps, limit
        self._frames = Handover(frames, name, drop)
        try:
            first = self._frames.peek(limit)
        except TimeoutError:
            self.close()
            raise silent(name, limit) from None
        if first is None:
            cause = f" ({reason(self._frames.error)})" if self._frames.error else ""
            raise UserError(f"{name}: returned no frame{cause}")
        self.height, self.width = first[1].shape[:2]

    @property
    def dropped(self) -> int:
        """The number of frames that were replaced before they were taken."""
        return self._frames.dropped

    def fingerprint(self) -> str:
        """The name of the source, since its frames are not known in advance."""
        return self.name

    def numbered(self, interruption: Interruption) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (number, frame), at least once, until the source ends or a signal arrives; then stop reading.

        Numbers count from 0 at the first frame of the source, and include dropped frames.
        """

        def stopped() -> bool:
            return interruption.signal is not None

        try:
            while (taken := self._frames.take(self._limit, stopped)) is not None:
                yield taken
                if stopped():
                    break
            if self._frames.error is not None:
                warn("%s: failed (%s)", self.name, reason(self._frames.error))
        except TimeoutError:
            warn("%s: gave no frame for %g s; taken as its end", self.name, self._limit)
        finally:
            self.close()

    def close(self) -> None:
        """Stop reading."""
        self._frames.close()


def _open_pipe(source: int | str, name: str, limit: float) -> Opened:
    """Open a stream in a named pipe or an open file descriptor. A pipe opens when somebody writes to it."""

    def opened() -> Opened:
        try:
            file = io.FileIO(source, closefd=isinstance(source, str))
        except OSError as error:
            raise UserError(f"{name}: cannot be read ({reason(error)})") from error
        context = contextlib.ExitStack()
        return _decoded(context, context.enter_context(open_bytes(file, name)), name)

    return answer(limit, name, opened)


def _open_stream(address: str, limit: float) -> Opened:
    """Open a stream of the network."""

    def opened() -> Opened:
        context = contextlib.ExitStack()
        return _decoded(context, context.enter_context(open_address(address, limit)), address)

    return answer(limit, address, opened)


def _decoded(context: contextlib.ExitStack, container: av.container.InputContainer, name: str) -> Opened:
    """The frames of a container's main stream, which close `context` at their end, and their rate."""
    stream = candidates(container, name)[0]

    def frames() -> Iterator[np.ndarray]:
        with context:
            decoding = Decoding(container, stream)
            yield from (frame for frame in decoding.run() if frame is not None)
            decoding.report(name)

    return frames(), rate(stream, CAMERA_FPS, name)


def _open_camera(name: str, limit: float) -> Opened:
    """Open a local camera with OpenCV, which supports every operating system."""
    missing = UserError(f"camera {name}: does not exist or cannot be opened; give another --input")
    if len(name) > 4 or int(name) >= CAMERAS:
        raise missing

    def opened() -> Opened:
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # the error replaces its message
        try:
            capture = cv2.VideoCapture(int(name))
        finally:
            cv2.utils.logging.setLogLevel(level)
        if not capture.isOpened():
            raise missing
        stated = capture.get(cv2.CAP_PROP_FPS)
        return _captured(capture), stated if stated > 0 else CAMERA_FPS  # 0, -1 or NaN if it is unknown

    return answer(limit, f"camera {name}", opened)


def _captured(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    try:
        while (read := capture.read())[0]:
            yield cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)
    finally:
        capture.release()
