"""Read frames from video files and folders of images, and write H.264 files."""

import contextlib
import os
import stat
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import sync
from masktrack_jax.video.decode import FAILURES, Decoding, candidates, open_file, rate, reason
from masktrack_jax.video.pictures import FOLDER_FPS, FrameFolder, PageFile, pages_of
from masktrack_jax.video.stored import StoredVideo, check_file, content_digest, stat_of
from masktrack_jax.video.waiting import LIMIT, answer, within

BLOCKS = 64  # of a video file for its fingerprint
SCANNED = 1000  # packets read to tell which of several streams moves


def open_video(path: str | Path, limit: float = LIMIT) -> StoredVideo:
    """Open a video file, an image file with several pages, or a folder of images.

    Raises `UserError` if there is no file or folder, if it is not a video, if it holds no frame, or if the
    disk gives no answer for `limit` seconds.
    """
    path = Path(path)
    return answer(limit, str(path), lambda: _open_video(path, limit))


def _open_video(path: Path, limit: float) -> StoredVideo:
    found = stat_of(path)
    if found is None:
        raise UserError(f"{path}: no such video or folder of frames")
    if stat.S_ISDIR(found.st_mode):
        return FrameFolder(path, limit)
    check_file(path)
    try:
        paged = len(pages_of(path)) > 1
    except UserError:  # FFmpeg may read what Pillow does not
        paged = False
    return PageFile(path, limit) if paged else VideoFile(path, limit)


class VideoFile(StoredVideo):
    """A video file, decoded by FFmpeg. Its frames are those of the stream that a player shows."""

    live = False

    def __init__(self, path: str | Path, limit: float = LIMIT) -> None:
        self.path, self._limit = Path(path), limit
        name = str(self.path)
        with open_file(self.path) as container:
            stream = _main_stream(container, name)
            self._index = stream.index
            self.fps = rate(stream, FOLDER_FPS, name)
            self.length = stream.frames or None
            sound = bool(container.streams.audio)
        with self._opened() as (container, stream):
            decoding = Decoding(container, stream)
            first = list(islice(decoding.run(), 2 if sound else 1))
        if not first:
            why = f" of the {self.length} that it states" if self.length else ""
            why += f" ({decoding.damaged} packets could not be decoded)" * (decoding.damaged > 0)
            raise UserError(f"{name}: holds no frame{why}; give a video with at least one")
        if sound and len(first) == 1:
            raise UserError(f"{name}: holds sound and one picture, but no video; give a video")
        assert first[0] is not None  # only frames before a start are
        self.height, self.width = first[0].shape[:2]

    def fingerprint(self) -> str:
        """The file's size and a digest of its bytes, see `content_digest`."""
        return answer(self._limit, str(self.path), lambda: content_digest(self.path, BLOCKS))

    def frames(self, start: int = 0) -> Iterator[np.ndarray]:
        """Iterate over the frames from `start`; warns of damaged packets and of a wrong number of frames."""
        # Earlier frames are decoded too, because a seek may be inexact.
        frames = within(self._limit, str(self.path), self._decoded(start))
        return (frame for frame in frames if frame is not None)

    def _decoded(self, start: int) -> Iterator[np.ndarray | None]:
        with self._opened() as (container, stream):
            decoding = Decoding(container, stream)
            try:
                yield from decoding.run(start)
            except FAILURES as error:
                where = f"{self.path}: cannot read frame {decoding.frames}"
                raise UserError(f"{where} ({reason(error)})") from error
            decoding.report(str(self.path))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
        """The file, opened anew, and its main stream."""
        with open_file(self.path) as container:
            stream = next(s for s in container.streams.video if s.index == self._index)
            yield container, stream


def _main_stream(container: av.container.InputContainer, name: str) -> av.VideoStream:
    """The stream that a player shows. A stream of a single picture is a cover where another one has more."""
    videos = candidates(container, name)
    if len(videos) > 1:
        packets = islice(container.demux(videos), SCANNED)
        with contextlib.suppress(*FAILURES):
            counts = Counter(packet.stream_index for packet in packets if packet.size)
            videos.sort(key=lambda stream: counts[stream.index] < 2)  # stable
    return videos[0]


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
            self._partial.unlink(missing_ok=True)
            self._partial.touch(exist_ok=False)  # never follows a link
            # FFmpeg takes no absolute path for a protocol, whatever the name of a folder in it.
            self._container = av.open(os.path.abspath(self._partial), "w", format="mp4")
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
