"""Open videos with FFmpeg, and decode the pictures that a player shows: for files, pipes and streams alike.

A video may come from anybody. FFmpeg gets the bytes of a file, never its name, so that no name is a protocol
or a pattern, and no file makes FFmpeg open another one or an address (SECURITY.md).
"""

import contextlib
import io
import logging
import math
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np

from masktrack_jax.runtime.errors import UserError, one_line, printable
from masktrack_jax.video.images import is_heic
from masktrack_jax.video.waiting import silent

FAILURES = (av.error.FFmpegError, OSError)  # raised while reading or writing a file
MAX_PIXELS = 1 << 26  # of a frame: 8192 x 8192. A larger one is damaged, or made to fill the memory
RATES = Fraction(1, 1000), 1000  # frames per second that are believed
# What a stream may open besides itself: segments of a playlist, never a file of this machine.
NETWORK = "http,https,httpproxy,tcp,tls,udp,rtp,srtp,srt,rist,crypto,data,ffrtmpcrypt,ffrtmphttp"
NETWORK += ",rtmp,rtmpe,rtmps,rtmpt,rtmpte,rtmpts"
LEFT_OUT = {"concat", "hls", "image2", "sdp", "vobsub", "webm_dash_manifest"}  # formats that name other files
LEFT_OUT |= {"tty"}  # draws any text
PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"v=0", b"[playlist]")  # how some of them begin


def reason(error: BaseException) -> str:
    """The description of an error of the operating system or FFmpeg."""
    return getattr(error, "strerror", None) or one_line(error)


def open_file(path: Path) -> AbstractContextManager[av.container.InputContainer]:
    """Open a video file as a context that closes it."""
    try:
        file = io.FileIO(path)
        head = file.read(16) or b""
        file.seek(0)
    except OSError as error:
        raise UserError(f"{path}: cannot be opened ({reason(error)})") from error
    if not head:
        raise UserError(f"{path}: is empty, not a video; copy it again")
    if head.startswith(PLAYLISTS):
        raise UserError(f"{path}: is a playlist, which names other files; give one of those")
    if is_heic(head):
        raise UserError(f"{path}: is a HEIC picture, which cannot be read; convert it to JPEG or PNG")
    return open_bytes(file, str(path))


@contextlib.contextmanager
def open_bytes(file: io.FileIO, name: str) -> Iterator[av.container.InputContainer]:
    """Open the video in a file or pipe as a context that closes it; `name` is used in messages."""
    suffix = Path(name).suffix
    file.name = f"video{suffix if suffix[1:].isalnum() else ''}"  # all that FFmpeg sees of the name
    options = {"protocol_whitelist": "none", "format_whitelist": _formats()}
    with file, _open(file, name, options) as container:
        yield container


def open_address(address: str, limit: float) -> av.container.InputContainer:
    """Open a network stream. FFmpeg gives up after `limit` seconds without data."""
    try:
        return _open(address, address, {"protocol_whitelist": NETWORK}, (limit, limit))
    except UserError as error:
        if isinstance(error.__cause__, av.error.ExitError | av.error.TimeoutError):
            raise silent(address, limit) from None
        raise


def _open(
    source: io.FileIO | str,
    name: str,
    options: dict[str, str],
    timeout: tuple[float, float] | None = None,
) -> av.container.InputContainer:
    options = {**options, "max_pixels": str(MAX_PIXELS)}
    try:
        # Metadata may be in any encoding.
        return av.open(source, "r", options=options, metadata_errors="replace", timeout=timeout)
    except FAILURES as error:
        cure = "give a video or a folder of images, or copy it again"
        raise UserError(f"{name}: not a video that can be read ({reason(error)}); {cure}") from error


@lru_cache(maxsize=1)
def _formats() -> str:
    """FFmpeg's list of the formats that are read from a file alone."""
    alone = []
    for name in av.formats_available - LEFT_OUT:
        with contextlib.suppress(ValueError):  # a format that is only written
            if not av.ContainerFormat(name, "r").no_file:
                alone.append(name)
    return ",".join(sorted(alone))


def candidates(container: av.container.InputContainer, name: str) -> list[av.VideoStream]:
    """The video streams that are no attached pictures, the one that a player shows first.

    Raises a UserError if there is none, or if FFmpeg has no decoder for it.
    """
    attached = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    videos = [stream for stream in container.streams.video if not stream.disposition & attached]
    if not videos:
        only = "only a cover picture" if container.streams.video else "no video stream"
        raise UserError(f"{name}: has {only}; give a video or a folder of images")
    best = container.streams.best("video")
    videos.sort(key=lambda stream: stream is not best)  # stable
    if videos[0].codec_context is None:
        raise UserError(f"{name}: FFmpeg has no decoder for its video; convert it to H.264")
    return videos


def rate(stream: av.VideoStream, default: float, name: str) -> float:
    """Frames per second as the stream states them, or `default` if it states none that is possible."""
    stated = stream.average_rate or stream.guessed_rate
    if stated and not RATES[0] <= stated <= RATES[1]:
        warn("%s: states %.3g frames per second; taken as %g", name, float(stated), default)
        stated = None
    return float(stated or default)


class Decoding:
    """One pass over the frames of a stream: damaged packets are skipped and counted.

    frames, damaged: the numbers of frames and of packets that could not be decoded, so far.
    """

    def __init__(self, container: av.container.InputContainer, stream: av.VideoStream) -> None:
        self.frames = self.damaged = 0
        self._container, self._stream = container, stream
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}

    def run(self, start: int = 0) -> Iterator[np.ndarray | None]:
        """Yield each frame upright, (H, W, 3) uint8 RGB; None instead of a frame before `start`."""
        # Threads decode slices, not frames: so damage is reported at its packet and costs no other frame.
        for packet in self._packets():
            try:
                decoded = packet.decode()
            except EOFError:  # nothing is left to flush
                return
            except (av.error.FFmpegError, MemoryError):
                self.damaged += 1
                continue
            for frame in decoded:
                shown = picture(frame) if self.frames >= start else None
                self.frames += 1
                yield shown

    def _packets(self) -> Iterator[av.Packet]:
        """The packets. Damage of the container ends them and counts as one; a lost connection is an error."""
        try:
            yield from self._container.demux(self._stream)
        except (av.error.FFmpegError, MemoryError) as error:
            if isinstance(error, (OSError, av.error.ExitError)):
                raise
            self.damaged += 1

    def report(self, name: str) -> None:
        """Log the number of damaged packets, and of frames if it differs from the stated one."""
        if self.damaged:
            warn("%s: %d packets could not be decoded", name, self.damaged)
        stated = self._stream.frames
        if stated and stated not in (self.frames, self.frames + self.damaged):
            warn("%s: states %d frames but has %d; it may be truncated", name, stated, self.frames)


def picture(frame: av.VideoFrame) -> np.ndarray:
    """A decoded frame as (H, W, 3) uint8 RGB, upright."""
    return upright(frame.to_ndarray(format="rgb24"), display_matrix(frame))


def display_matrix(frame: av.VideoFrame) -> bytes:
    """The display matrix of a frame, see `upright`; empty if it has none."""
    try:
        found: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV knows not all kinds of side data, such as EXIF; it still tells the angle
        turned = math.radians(-frame.rotation)
        a, b = round(65536 * math.cos(turned)), round(65536 * math.sin(turned))
        return struct.pack("=9i", a, b, 0, -b, a, 0, 0, 0, 1 << 30)
    return bytes(found) if found else b""


def upright(frame: np.ndarray, matrix: bytes) -> np.ndarray:
    """The frame (H, W, 3) turned and mirrored as the display matrix of a video states.

    matrix: nine int32 a, b, u, c, d, v, x, y, w; the pixel at (x, y) is shown at (a x + c y, b x + d y). Of a
    matrix that also scales or shears, the nearest of the eight orientations counts.
    """
    if len(matrix) < 36:
        return frame
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix[:36])
    if abs(a) + abs(d) < abs(b) + abs(c):
        frame, a, d = frame.swapaxes(0, 1), c, b
    return np.ascontiguousarray(frame[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def warn(message: str, *values: object) -> None:
    """Log a warning of one line; a name in it may have any characters."""
    logging.getLogger(__name__).warning("%s", printable(message % values))
