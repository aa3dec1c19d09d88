"""Run `track_video` with a detector that knows the answer, in a process that kills itself on demand.

python -m tests.helpers.track_known INPUT OUTPUT [POINT COUNT]

POINT names one of `POINTS`; SIGKILL comes at its COUNTth call.
"""

import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from typing import Any, BinaryIO

from masktrack_jax.inference import progress, track_video, tracks_on_disk
from tests.helpers.moving_objects import moving_objects, segmenter_of

FRAMES = 22  # whose objects the detector knows


def kill_at(owner: Any, name: str, nth: int, half: Callable[..., None] | None = None) -> None:
    """Make the nth call of `owner.name` kill the process, after `half` was called with the same arguments."""
    function, calls = getattr(owner, name), count(1)

    def deadly(*arguments: Any, **options: Any) -> Any:
        if next(calls) == nth:
            if half:
                half(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)

    setattr(owner, name, deadly)


def half_a_line(tracks: tracks_on_disk.StoredTracks, _: object) -> None:
    """As if the power failed while a line was written."""
    tracks._file.write(b"[0, 3, 0.12")
    tracks._file.flush()


def half_a_state(file: BinaryIO, **_: object) -> None:
    """As if the power failed while the state was written."""
    file.write(b"PK half")
    file.flush()


POINTS = {
    "detector": lambda segmenter, nth: kill_at(segmenter, "predict", nth),
    "line": lambda _, nth: kill_at(tracks_on_disk.StoredTracks, "add", nth, half_a_line),
    "state": lambda _, nth: kill_at(progress.np, "savez", nth, half_a_state),
    "rename": lambda _, nth: kill_at(os, "replace", nth),
    "tracks": lambda _, nth: kill_at(tracks_on_disk, "judge", nth),
    "join": lambda _, nth: kill_at(progress, "join_parts", nth),
}


def main(video: str, output: str, point: str | None = None, nth: int | str = 0) -> None:
    """Track, killed at `point` if there is one."""
    progress.SAVE_FRAMES = 4
    segmenter = segmenter_of(moving_objects(FRAMES), frames_per_call=2)
    if point:
        POINTS[point](segmenter, int(nth))
    print(track_video.track_video(segmenter, video, output))


if __name__ == "__main__":
    main(*sys.argv[1:])
