"""Scalars of a run for TensorBoard."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from masktrack_jax.runtime.errors import printable


class Board:
    """Writes scalars to a new event file in `folder`; those of earlier files from step `start` on are hidden.

    Each call writes the file itself: a `SummaryWriter` of tensorboardX has a thread, for which the process
    waits for ever once the disk is full. If the file cannot be written, the board says so once and ends.
    """

    def __init__(self, folder: Path, start: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._folder, self._event = folder, Event
        self._writer: Any = None
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"))
        started = SessionLog(status=SessionLog.START)
        self._write(Event(step=start, file_version="brain.Event:2"), Event(step=start, session_log=started))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._writer = None
            line = f"{self._folder}: cannot be written ({error.strerror}); training continues without it"
            print(printable(line))

    def _write(self, *events: Any) -> None:
        with self._writing():
            for event in events if self._writer else ():
                event.wall_time = time.time()
                self._writer.write_event(event)
            if self._writer:
                self._writer.flush()

    def add(self, step: int, scalars: Mapping[str, float | int]) -> None:
        """Write scalars of a step."""
        from tensorboardX.summary import scalar

        self._write(*(self._event(step=step, summary=scalar(*item)) for item in scalars.items()))

    def close(self) -> None:
        if self._writer is not None:
            with self._writing():
                self._writer.close()
