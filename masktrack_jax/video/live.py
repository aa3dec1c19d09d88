"""Frames of cameras, pipes and network streams, read by a thread that buffers a single frame."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np

from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.signals import Interruption
from masktrack_jax.video.files import FAILURES, FrameFolder, VideoFile, open_video, reason, upright

POLL = 0.1  # seconds between two checks for a signal while waiting
CAMERA_FPS = 30.0  # for a camera that does not state its rate


def open_source(name: str | Path, drop_frames: bool = False) -> "VideoFile | FrameFolder | LiveSource":
    """Open a live source or a stored video.

    `name` is "-" for the standard input, in any format that FFmpeg reads; a URL, such as rtsp://…; the number
    of a camera, unless a file has that name; or the path of a video or a folder of images. `drop_frames` is
    `drop` of `LiveSource`. Raises `UserError` if the source cannot be opened, or if `drop_frames` is set for
    a file.
    """
    name = str(name)
    if name == "-":
        return LiveSource("standard input", *open_stream("pipe:0", "standard input"), drop_frames)
    if "://" in name:
        return LiveSource(name, *open_stream(name, name), drop_frames)
    if name.isdecimal() and not Path(name).exists():
        return LiveSource(f"camera {name}", *open_camera(int(name)), drop_frames)
    if drop_frames:
        raise UserError(f"{name}: frames of a file are never dropped; leave out --drop_frames")
    return open_video(name)


class LiveSource:
    """A source with its own frame rate, read by a separate thread.

    The constructor waits for the first frame and raises `UserError` if there is none. If the source fails
    later, its frames end there and the error is logged.

    Args:
      name: used in messages.
      frames: iterator over (H, W, 3) uint8 RGB, which may block.
      fps: frames per second, as the source states them.
      drop: replace a frame that was not taken by the next one, and count it in `dropped`. Otherwise the
        thread waits until the frame is taken, and so does the source if it can.
    Attributes:
      height, width: size of the first frame.
      length: None.
      live: True.
    """

    height: int
    width: int
    live, length = True, None

    def __init__(self, name: str, frames: Iterator[np.ndarray], fps: float, drop: bool = False) -> None:
        self.name, self.fps, self.drop, self.dropped = name, fps, drop, 0
        self._frames, self._ended = frames, False
        self._held: tuple[int, np.ndarray] | None = None
        self._error: Exception | None = None
        self._changed = threading.Condition()
        # A daemon thread, because a read from a silent source may never return.
        threading.Thread(target=self._read, name=name, daemon=True).start()
        with self._changed:
            while self._held is None and not self._ended:
                self._changed.wait(POLL)
            if self._held is None:
                cause = f" ({reason(self._error)})" if self._error else ""
                raise UserError(f"{name}: returned no frame{cause}")
            self.height, self.width = self._held[1].shape[:2]

    def fingerprint(self) -> str:
        """The name of the source, since its frames are not known in advance."""
        return self.name

    def numbered(self, interruption: Interruption) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (number, frame), at least once, until the source ends or a signal arrives; then stop reading.

        Numbers count from 0 at the first frame of the source, and include dropped frames.
        """
        try:
            while (taken := self._take()) is not None:
                yield taken
                if interruption.signal is not None:
                    break
                self._wait(interruption)
            if self._error is not None:
                logging.getLogger(__name__).warning("%s: failed (%s)", self.name, reason(self._error))
        finally:
            self.close()

    def close(self) -> None:
        """Stop reading."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _wait(self, interruption: Interruption) -> None:
        """Wait until there is a frame, the source has ended, or a signal has arrived."""
        with self._changed:
            while self._held is None and not self._ended and interruption.signal is None:
                self._changed.wait(POLL)

    def _take(self) -> tuple[int, np.ndarray] | None:
        with self._changed:
            taken, self._held = self._held, None
            self._changed.notify_all()
        return taken

    def _read(self) -> None:
        """The body of the thread."""
        try:
            for number, frame in enumerate(self._frames):
                if not self._put(number, frame):
                    return
        except Exception as error:
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, number: int, frame: np.ndarray) -> bool:
        """Hold a frame, after waiting for or dropping the held one; False if reading has stopped."""
        with self._changed:
            while self._held is not None and not self.drop and not self._ended:
                self._changed.wait()
            if self._ended:
                return False
            self.dropped += self._held is not None
            self._held = number, frame
            self._changed.notify_all()
        return True


def open_stream(address: str, name: str) -> tuple[Iterator[np.ndarray], float]:
    """Open a stream with FFmpeg; returns frames and rate. Packets that cannot be decoded are skipped."""
    try:
        container = av.open(address)
    except FAILURES as error:
        raise UserError(f"{name}: not a video that can be read ({reason(error)})") from error
    if not container.streams.video:
        raise UserError(f"{name}: has no video stream")
    stream = container.streams.video[0]
    return _decoded(container, stream, name), float(stream.average_rate or stream.guessed_rate or CAMERA_FPS)


def _decoded(
    container: av.container.InputContainer, stream: av.VideoStream, name: str
) -> Iterator[np.ndarray]:
    broken = 0
    with container:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:  # the stream was joined between two key frames, or lost one
                broken += 1
                continue
            for frame in frames:
                yield upright(frame.to_ndarray(format="rgb24"), frame.rotation)
    if broken:
        logging.getLogger(__name__).warning("%s: %d packets could not be decoded", name, broken)


def open_camera(number: int) -> tuple[Iterator[np.ndarray], float]:
    """Open a local camera with OpenCV, which supports every operating system; returns frames and rate."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # the error below replaces its message
    try:
        capture = cv2.VideoCapture(number)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if not capture.isOpened():
        raise UserError(f"camera {number}: does not exist or cannot be opened; give another --input")
    rate = capture.get(cv2.CAP_PROP_FPS)
    return _captured(capture), rate if rate > 0 else CAMERA_FPS  # 0, -1 or NaN if the rate is unknown


def _captured(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    try:
        while (read := capture.read())[0]:
            yield cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)
    finally:
        capture.release()
