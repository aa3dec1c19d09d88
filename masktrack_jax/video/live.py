"""Frames of cameras, pipes and network streams: read by a thread that never holds more than one of them."""

import logging
import threading
from pathlib import Path

import av
import cv2

from masktrack_jax.runtime.errors import UserError
from masktrack_jax.video.files import FAILURES, open_video, reason, upright

POLL = 0.1  # seconds after which one who waits looks for a signal
CAMERA_FPS = 30.0  # of a camera that does not tell


def open_source(name, drop_frames=False):
    """Return a `LiveSource` or what `video.open_video` gives.

    name: "-", the standard input, in any form that FFmpeg knows; a URL, such as rtsp://…; the number of a
    camera, where no file has that name; or the path of a video or of a folder of images. Raises `UserError`
    for what cannot be opened, and for a file of which frames are to be dropped.
    """
    name = str(name)
    if name == "-":
        return LiveSource("standard input", *open_stream("pipe:0", "standard input"), drop_frames)
    if "://" in name:
        return LiveSource(name, *open_stream(name, name), drop_frames)
    if name.isdecimal() and not Path(name).exists():
        return LiveSource(f"camera {name}", *open_camera(int(name)), drop_frames)
    if drop_frames:
        raise UserError(f"{name}: a file waits for its reader; leave out --drop_frames")
    return open_video(name)


class LiveSource:
    """A source that goes at its own speed, read by a thread of its own.

    name: for messages; frames: an iterator over (H, W, 3) uint8 RGB, which may take its time; fps: as the
    source says. drop: a frame that nobody took is replaced by the next one and counted in `dropped`; else the
    thread waits with it, and so does the source, if it can. Has `height` and `width` of the first frame, for
    which it waits, and `length` None. A source that breaks off ends there, and the reason is logged. Raises
    `UserError` where there is no frame at all.
    """

    live, length = True, None

    def __init__(self, name, frames, fps, drop=False):
        self.name, self.fps, self.drop, self.dropped = name, fps, drop, 0
        self._frames, self._held, self._ended, self._error = frames, None, False, None
        self._changed = threading.Condition()
        # A daemon: a source that has nothing more to say may never return from the read.
        threading.Thread(target=self._read, name=name, daemon=True).start()
        with self._changed:
            while self._held is None and not self._ended:
                self._changed.wait(POLL)
            if self._held is None:
                raise UserError(f"{name}: gives no frame" + f" ({reason(self._error)})" * bool(self._error))
            self.height, self.width = self._held[1].shape[:2]

    def fingerprint(self):
        """The name: what comes cannot be known beforehand."""
        return self.name

    def numbered(self, interruption):
        """Yield (number, frame), 0 being the source's first, until it ends or a signal comes.

        At least one frame comes. Ends the reading.
        """
        try:
            while (taken := self._take()) is not None:
                yield taken
                if interruption.signal is not None:
                    break
                self._wait(interruption)
            if self._error is not None:
                logging.getLogger(__name__).warning("%s: broke off (%s)", self.name, reason(self._error))
        finally:
            self.close()

    def close(self):
        """End the reading."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _wait(self, interruption):
        """Until there is a frame, the source has ended, or a signal is there."""
        with self._changed:
            while self._held is None and not self._ended and interruption.signal is None:
                self._changed.wait(POLL)

    def _take(self):
        with self._changed:
            taken, self._held = self._held, None
            self._changed.notify_all()
        return taken

    def _read(self):
        """What the thread does."""
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

    def _put(self, number, frame):
        """Hold a frame, waiting for room or dropping the one that is held; False when the reading is over."""
        with self._changed:
            while self._held is not None and not self.drop and not self._ended:
                self._changed.wait()
            if self._ended:
                return False
            self.dropped += self._held is not None
            self._held = number, frame
            self._changed.notify_all()
        return True


def open_stream(address, name):
    """Frames and rate of what FFmpeg opens at an address; what cannot be decoded is left out and counted."""
    try:
        container = av.open(address)
    except FAILURES as error:
        raise UserError(f"{name}: not a video that can be read ({reason(error)})") from error
    if not container.streams.video:
        raise UserError(f"{name}: has no video stream")
    stream = container.streams.video[0]
    return _decoded(container, stream, name), float(stream.average_rate or stream.guessed_rate or CAMERA_FPS)


def _decoded(container, stream, name):
    broken = 0
    with container:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:  # the stream was joined between two whole pictures, or lost one
                broken += 1
                continue
            for frame in frames:
                yield upright(frame.to_ndarray(format="rgb24"), frame.rotation)
    if broken:
        logging.getLogger(__name__).warning("%s: %d packets could not be decoded", name, broken)


def open_camera(number):
    """Frames and rate of a camera of this machine, by OpenCV, which knows the cameras of every system."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # it is said below
    try:
        capture = cv2.VideoCapture(number)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if not capture.isOpened():
        raise UserError(f"camera {number}: there is none, or it cannot be opened; give another --input")
    rate = capture.get(cv2.CAP_PROP_FPS)
    return _captured(capture), rate if rate > 0 else CAMERA_FPS  # 0, -1 or not a number where it cannot tell


def _captured(capture):
    try:
        while (read := capture.read())[0]:
            yield cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)
    finally:
        capture.release()
