"""Frames of a video file or of a folder of images in, H.264 files out."""

import hashlib
import logging
import math
import os
import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from masktrack_jax.data.images import read_image
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import sync

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
FAILURES = (av.error.FFmpegError, OSError)  # all that reading or writing a file may raise
FOLDER_FPS = 10.0  # a folder of frames does not tell; the sets of YouTube-VIS kind hold 5 or 6 a second


def open_video(path):
    """Return the frames of a video file or of a folder of images, as a `VideoFile` or `FrameFolder`.

    Both have `height`, `width` (of the first frame), `fps`, `length` (frames; None if the file does not
    tell), `frames(start=0)`, which iterates from a frame on over (H, W, 3) uint8 RGB arrays, and
    `fingerprint()`, a string by which the same frames are known again. Raises `UserError` when there is
    nothing at `path`, when it is no video or holds no frame; and while iterating, on a damaged frame.
    """
    path = Path(path)
    if path.is_dir():
        return FrameFolder(path)
    if not path.is_file():
        raise UserError(f"{path}: no such video or folder of frames")
    return VideoFile(path)


class VideoFile:
    """A video file, decoded by PyAV; frames are turned as the file's display matrix says."""

    live = False

    def __init__(self, path):
        self.path = Path(path)
        first = next(self.frames(), None)
        if first is None:
            raise UserError(f"{self.path}: holds no frame; give a video with at least one")
        self.height, self.width = first.shape[:2]
        with self._open() as container:
            stream = container.streams.video[0]
            self.fps = float(stream.average_rate or stream.guessed_rate or FOLDER_FPS)
            self.length = stream.frames or None

    def fingerprint(self):
        """The file's size and the digest of its first and last megabyte."""
        with open(self.path, "rb") as file:
            digest = hashlib.sha256(file.read(1 << 20))
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - (1 << 20)))
            digest.update(file.read())
        return f"{size} bytes, {digest.hexdigest()}"

    def frames(self, start=0):
        """Iterate from a frame on over (H, W, 3) uint8 RGB; warns where the file says that it has more."""
        with self._open() as container:
            if not container.streams.video:
                raise UserError(f"{self.path}: has no video stream; give a video or a folder of images")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            index = 0
            try:
                for frame in container.decode(stream):
                    if index >= start:  # those before are decoded: a seek may land on another frame
                        yield upright(frame.to_ndarray(format="rgb24"), frame.rotation)
                    index += 1
            except av.error.FFmpegError as error:
                raise UserError(f"{self.path}: cannot decode frame {index} ({reason(error)})") from error
            if stream.frames and index != stream.frames:
                logging.getLogger(__name__).warning(
                    "%s: says that it holds %d frames, but has %d; it may be cut off",
                    *(self.path, stream.frames, index),
                )

    def _open(self):
        try:
            return av.open(str(self.path))
        except FAILURES as error:
            raise UserError(f"{self.path}: not a video that can be read ({reason(error)})") from error


class FrameFolder:
    """A folder of images, one a frame, in natural order of their names (2.jpg before 10.jpg)."""

    live = False

    def __init__(self, path):
        self.path = Path(path)
        names = [p for p in self.path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "."]
        self.files = sorted(names, key=natural_order)
        if not self.files:
            raise UserError(f"{self.path}: holds no images; expected frames such as 00000.jpg")
        self.height, self.width = read_image(self.files[0]).shape[:2]
        self.fps = FOLDER_FPS
        self.length = len(self.files)

    def fingerprint(self):
        """How many images there are, and the digest of their names and sizes."""
        names = "".join(f"{file.name}\0{file.stat().st_size}\n" for file in self.files)
        return f"{self.length} images, {hashlib.sha256(names.encode()).hexdigest()}"

    def frames(self, start=0):
        """Iterate from a frame on over (H, W, 3) uint8 RGB."""
        return (read_image(file) for file in self.files[start:])


class VideoWriter:
    """Writes an H.264 mp4 that plays everywhere (yuv420p); a context manager.

    The file appears at `path` when it is complete; on an error nothing is left. A size that is not even is
    padded by repeating the last row or column, because yuv420p halves both axes.
    """

    def __init__(self, path, fps, height, width):
        self.path = Path(path)
        self.height, self.width = height, width
        self._partial = self.path.with_name(f".{self.path.name}.partial")
        self._frames = 0
        try:
            self._partial.touch()
            self._container = av.open(str(self._partial), "w", format="mp4")
        except FAILURES as error:
            raise UserError(f"{self.path}: cannot be written ({reason(error)})") from error
        self._rate = frame_rate(fps)
        # Without B-frames times only grow, so that `join_parts` can put one file behind another.
        options = {"crf": "19", "preset": "veryfast", "bf": "0"}
        self._stream = self._container.add_stream("libx264", rate=self._rate, options=options)
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuv420p"
        # Untagged, a player takes a large frame for BT.709 and shifts its colours.
        self._stream.codec_context.colorspace = Colorspace.ITU601
        self._stream.codec_context.color_range = ColorRange.MPEG

    def write(self, frame, time=None):
        """Append a frame (height, width, 3) uint8 RGB.

        time: when it is shown, in whole 1 / fps, later than the one before; by default the number of frames.
        """
        if frame.shape != (self.height, self.width, 3):
            raise ValueError(f"frame of shape {frame.shape} in a video of {self.height}x{self.width}")
        padded = np.pad(frame, ((0, self.height % 2), (0, self.width % 2), (0, 0)), mode="edge")
        rgb = av.VideoFrame.from_ndarray(padded, format="rgb24")
        picture = rgb.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU601)
        picture.pts, picture.time_base = self._frames if time is None else time, 1 / self._rate
        self._frames += 1
        self._encode(picture)

    def close(self):
        """Finish the file and put it at `path`."""
        self._encode(None)
        try:
            self._container.close()
            sync(self._partial)
            os.replace(self._partial, self.path)
        except FAILURES as error:
            raise UserError(f"{self.path}: cannot be written ({reason(error)})") from error

    def discard(self):
        """Give up: leave no file."""
        try:
            self._container.close()
        except FAILURES:
            pass  # the file goes away in any case
        finally:
            self._partial.unlink(missing_ok=True)

    def __enter__(self):
        return self

    def __exit__(self, error_type, error, traceback):
        if error_type is not None:
            self.discard()
            return
        try:
            self.close()
        except BaseException:
            self.discard()
            raise

    def _encode(self, frame):
        try:
            self._container.mux(self._stream.encode(frame))
        except FAILURES as error:
            raise UserError(f"{self.path}: cannot be written ({reason(error)})") from error


def frame_rate(fps):
    """Return frames a second as the fraction that a file can hold, such as 30000 / 1001."""
    return Fraction(fps).limit_denominator(1001)


def upright(frame, rotation):
    """Return the frame (H, W, 3) turned counterclockwise by the right angle nearest to `rotation`."""
    turns = round(rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(frame, turns)) if turns else frame


def natural_order(path):
    """Return a sorting key under which frame2 comes before frame10."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdigit() else (math.inf, part) for part in parts], path.name


def reason(error):
    """Return an operating system's or FFmpeg's error as a few words."""
    return getattr(error, "strerror", None) or str(error)
