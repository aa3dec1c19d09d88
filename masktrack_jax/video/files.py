"""Read frames from video files and folders of images, and write H.264 files."""

import hashlib
import logging
import math
import os
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from masktrack_jax.data.images import read_image
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import sync

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
FAILURES = (av.error.FFmpegError, OSError)  # raised while reading or writing a file
FOLDER_FPS = 10.0  # for a folder of frames, which has no rate; data sets like YouTube-VIS have 5 or 6


class StoredVideo(Protocol):
    """A video on disk. Its frames are (H, W, 3) uint8 RGB and can be read any number of times.

    Attributes:
      height, width: size of the first frame.
      fps: frames per second.
      length: number of frames, None if the file does not state it.
      live: False, unlike for a `LiveSource`, which can be read only once.
    """

    height: int
    width: int
    fps: float
    length: int | None
    live: bool

    def fingerprint(self) -> str:
        """A string that identifies the frames; a copy of the video has the same one."""

    def frames(self, start: int = 0) -> Iterator[np.ndarray]:
        """Iterate over the frames from `start`. Raises `UserError` for a damaged frame."""


def open_video(path: str | Path) -> "VideoFile | FrameFolder":
    """Open a video file or a folder of images.

    Raises `UserError` if there is no file or folder, if it is not a video, or if it holds no frame.
    """
    path = Path(path)
    if path.is_dir():
        return FrameFolder(path)
    if not path.is_file():
        raise UserError(f"{path}: no such video or folder of frames")
    return VideoFile(path)


class VideoFile(StoredVideo):
    """A video file, decoded by PyAV; frames are rotated according to the file's display matrix."""

    live = False

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        first = next(self.frames(), None)
        if first is None:
            raise UserError(f"{self.path}: holds no frame; give a video with at least one")
        self.height, self.width = first.shape[:2]
        with self._open() as container:
            stream = container.streams.video[0]
            self.fps = float(stream.average_rate or stream.guessed_rate or FOLDER_FPS)
            self.length = stream.frames or None

    def fingerprint(self) -> str:
        """The file's size and the digest of its first and last megabyte."""
        with open(self.path, "rb") as file:
            digest = hashlib.sha256(file.read(1 << 20))
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - (1 << 20)))
            digest.update(file.read())
        return f"{size} bytes, {digest.hexdigest()}"

    def frames(self, start: int = 0) -> Iterator[np.ndarray]:
        """Iterate over the frames from `start`; warns if the number of frames differs from the file's."""
        with self._open() as container:
            if not container.streams.video:
                raise UserError(f"{self.path}: has no video stream; give a video or a folder of images")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            index = 0
            try:
                for frame in container.decode(stream):
                    if index >= start:  # earlier frames are decoded too, because a seek may be inexact
                        yield upright(frame.to_ndarray(format="rgb24"), frame.rotation)
                    index += 1
            except av.error.FFmpegError as error:
                raise UserError(f"{self.path}: cannot decode frame {index} ({reason(error)})") from error
            if stream.frames and index != stream.frames:
                logging.getLogger(__name__).warning(
                    "%s: states %d frames but has %d; it may be truncated",
                    *(self.path, stream.frames, index),
                )

    def _open(self) -> av.container.InputContainer:
        try:
            return av.open(str(self.path))
        except FAILURES as error:
            raise UserError(f"{self.path}: not a video that can be read ({reason(error)})") from error


class FrameFolder(StoredVideo):
    """A folder with one image per frame, in natural order of their names (2.jpg before 10.jpg)."""

    live = False

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        names = [p for p in self.path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "."]
        self.files = sorted(names, key=natural_order)
        if not self.files:
            raise UserError(f"{self.path}: holds no images; expected frames such as 00000.jpg")
        self.height, self.width = read_image(self.files[0]).shape[:2]
        self.fps = FOLDER_FPS
        self.length = len(self.files)

    def fingerprint(self) -> str:
        """The number of images, and the digest of their names and sizes."""
        names = "".join(f"{file.name}\0{file.stat().st_size}\n" for file in self.files)
        return f"{self.length} images, {hashlib.sha256(names.encode()).hexdigest()}"

    def frames(self, start: int = 0) -> Iterator[np.ndarray]:
        """Iterate over the frames from `start`."""
        return (read_image(file) for file in self.files[start:])


class VideoWriter:
    """Writes an H.264 mp4 in yuv420p, which every player supports; a context manager.

    The file is written atomically: it appears at `path` when it is complete, and is deleted on an error. An
    odd height or width is padded by repeating the last row or column, because yuv420p halves both.
    """

    def __init__(self, path: str | Path, fps: float, height: int, width: int) -> None:
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
        # Without B-frames, timestamps increase in the order of packets, which `join_parts` relies on.
        options = {"crf": "19", "preset": "veryfast", "bf": "0"}
        self._stream = self._container.add_stream("libx264", rate=self._rate, options=options)
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuv420p"
        # Players assume BT.709 for large frames without a tag, which shifts the colours.
        self._stream.codec_context.colorspace = Colorspace.ITU601
        self._stream.codec_context.color_range = ColorRange.MPEG

    def write(self, frame: np.ndarray, time: int | None = None) -> None:
        """Append a frame (height, width, 3) uint8 RGB.

        `time` is its presentation time in units of 1 / fps, later than that of the previous frame. The
        default is the number of frames written before.
        """
        if frame.shape != (self.height, self.width, 3):
            raise ValueError(f"frame of shape {frame.shape} in a video of {self.height}x{self.width}")
        padded = np.pad(frame, ((0, self.height % 2), (0, self.width % 2), (0, 0)), mode="edge")
        rgb = av.VideoFrame.from_ndarray(padded, format="rgb24")
        picture = rgb.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU601)
        picture.pts, picture.time_base = self._frames if time is None else time, 1 / self._rate
        self._frames += 1
        self._encode(picture)

    def close(self) -> None:
        """Finish the file and move it to `path`."""
        self._encode(None)
        try:
            self._container.close()
            sync(self._partial)
            os.replace(self._partial, self.path)
        except FAILURES as error:
            raise UserError(f"{self.path}: cannot be written ({reason(error)})") from error

    def discard(self) -> None:
        """Delete the unfinished file."""
        try:
            self._container.close()
        except FAILURES:
            pass  # the file is deleted anyway
        finally:
            self._partial.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error_type is not None:
            self.discard()
            return
        try:
            self.close()
        except BaseException:
            self.discard()
            raise

    def _encode(self, frame: av.VideoFrame | None) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except FAILURES as error:
            raise UserError(f"{self.path}: cannot be written ({reason(error)})") from error


def frame_rate(fps: float) -> Fraction:
    """Frames per second as a fraction that a file can store, such as 30000 / 1001."""
    return Fraction(fps).limit_denominator(1001)


def upright(frame: np.ndarray, rotation: float) -> np.ndarray:
    """The frame (H, W, 3) rotated counterclockwise by the multiple of 90 degrees nearest to `rotation`."""
    turns = round(rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(frame, turns)) if turns else frame


def natural_order(path: Path) -> tuple[list[tuple[float, str]], str]:
    """A sorting key that puts frame2 before frame10."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdigit() else (math.inf, part) for part in parts], path.name


def reason(error: BaseException) -> str:
    """The description of an error of the operating system or FFmpeg."""
    return getattr(error, "strerror", None) or str(error)
