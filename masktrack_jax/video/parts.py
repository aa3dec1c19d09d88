"""Write a video in parts; finished parts are complete files that survive the end of the process."""

import os
import re
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np

from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import whole
from masktrack_jax.video.decode import FAILURES, candidates, open_file, reason
from masktrack_jax.video.files import VideoWriter, frame_rate


class PartWriter:
    """Writes parts `overlay-TIME.mp4` to a folder; TIME is the time of the first frame, in units of 1 / fps.

    A context manager that finishes the open part, or deletes it after an error.
    """

    def __init__(self, folder: str | Path, fps: float, height: int, width: int) -> None:
        self.folder, self.fps, self.height, self.width = Path(folder), fps, height, width
        self._part: VideoWriter | None = None
        self._start = 0

    def write(self, frame: np.ndarray, time: int) -> None:
        """Append a frame (height, width, 3) uint8 RGB with presentation `time` in units of 1 / fps."""
        if self._part is None:
            path = self.folder / f"overlay-{time:09d}.mp4"
            self._part, self._start = VideoWriter(path, self.fps, self.height, self.width), time
        self._part.write(frame, time - self._start)

    def cut(self) -> None:
        """Finish the open part; the next frame starts a new one."""
        part, self._part = self._part, None
        if part is not None:
            with part:
                pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error_type is None:
            self.cut()
        elif self._part is not None:
            self._part.discard()


def parts_of(folder: str | Path) -> list[tuple[int, Path]]:
    """Times and paths of the finished parts in a folder, in order."""
    named = ((re.fullmatch(r"overlay-([0-9]{9,})\.mp4", path.name), path) for path in Path(folder).iterdir())
    return sorted((int(name[1]), path) for name, path in named if name)


def join_parts(folder: str | Path, path: str | Path, fps: float) -> None:
    """Concatenate the parts in a folder, at least one, into the mp4 `path` without re-encoding."""
    with whole(path) as partial:
        try:
            with av.open(os.path.abspath(partial), "w", format="mp4") as target:
                stream = None
                for time, part in parts_of(folder):
                    with open_file(part) as container:
                        source = candidates(container, str(part))[0]
                        stream = stream or target.add_stream_from_template(source)
                        _append(container, source, target, stream, time / frame_rate(fps))
        except FAILURES as error:
            if isinstance(error, OSError):
                raise
            raise UserError(f"{path}: cannot be written ({reason(error)})") from error


def _append(
    container: av.container.InputContainer,
    source: av.VideoStream,
    target: av.container.OutputContainer,
    stream: av.VideoStream,
    seconds: Fraction,
) -> None:
    """Copy the packets of a part that begins at `seconds`."""
    assert source.time_base is not None  # only an encoder has none yet
    shift = round(seconds / source.time_base)
    for packet in container.demux(source):
        if packet.pts is not None and packet.dts is not None:  # None marks the end
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            packet.stream = stream
            target.mux(packet)
