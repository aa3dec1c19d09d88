"""A video written in parts, each of them whole, so that what there is survives whatever ends the process."""

from pathlib import Path

import av

from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import whole
from masktrack_jax.video.files import FAILURES, VideoWriter, frame_rate, reason


class PartWriter:
    """Writes the parts `overlay-TIME.mp4` of a folder, TIME being that of the first frame in 1 / fps.

    A context manager, which finishes the open part, or takes it away after an error.
    """

    def __init__(self, folder, fps, height, width):
        self.folder, self.fps, self.height, self.width = Path(folder), fps, height, width
        self._part, self._start = None, 0

    def write(self, frame, time):
        """Append a frame (height, width, 3) uint8 RGB, shown at `time`, in 1 / fps."""
        if self._part is None:
            path = self.folder / f"overlay-{time:09d}.mp4"
            self._part, self._start = VideoWriter(path, self.fps, self.height, self.width), time
        self._part.write(frame, time - self._start)

    def cut(self):
        """Finish the open part: the next frame begins another one."""
        part, self._part = self._part, None
        if part is not None:
            with part:
                pass

    def __enter__(self):
        return self

    def __exit__(self, error_type, error, traceback):
        if error_type is None:
            self.cut()
        elif self._part is not None:
            self._part.discard()


def parts_of(folder):
    """The times and paths of a folder's finished parts, in order."""
    paths = Path(folder).glob("overlay-*.mp4")
    return sorted((int(path.stem.split("-")[1]), path) for path in paths)


def join_parts(folder, path, fps):
    """Put a folder's parts, at least one, one behind another into the mp4 `path`, without encoding anew."""
    with whole(path) as partial:
        try:
            with av.open(str(partial), "w", format="mp4") as target:
                stream = None
                for time, part in parts_of(folder):
                    with av.open(str(part)) as container:
                        stream = stream or target.add_stream_from_template(container.streams.video[0])
                        _append(container, target, stream, time / frame_rate(fps))
        except FAILURES as error:
            if isinstance(error, OSError):
                raise
            raise UserError(f"{path}: cannot be written ({reason(error)})") from error


def _append(container, target, stream, seconds):
    """Copy the packets of a part that begins at `seconds`, a fraction."""
    source = container.streams.video[0]
    shift = round(seconds / source.time_base)
    for packet in container.demux(source):
        if packet.dts is not None:  # None: the end
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            packet.stream = stream
            target.mux(packet)
