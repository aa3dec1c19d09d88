"""Write the metrics of a run to `WORKDIR/metrics.jsonl`, to TensorBoard, and to the terminal."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np
from tqdm import tqdm

from masktrack_jax.runtime.errors import UserError, printable
from masktrack_jax.runtime.files import whole
from masktrack_jax.training.board import Board
from masktrack_jax.training.schedule import Rate
from masktrack_jax.training.step import Metrics

Row = dict[str, int | float | None]

LONGEST = 2**20  # bytes of a row
WORKDIR = "free disk space and run the same command again, or choose another --workdir"


class MetricsLog:
    """Collects the metrics of steps and writes their means every `every` steps.

    `rate` is the learning rate schedule, and `frames` the number of frames in a step. `pending` are metrics
    that the resumed run had collected but not written.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        every: int,
        start: int,
        total: int,
        frames: int,
        rate: Rate,
        pending: Sequence[dict[str, float]] = (),
    ) -> None:
        self._every, self._total, self._frames, self._rate = every, total, frames, rate
        self._path = workdir / "metrics.jsonl"
        drop_rows_after(self._path, start)
        self._board = Board(workdir / "tensorboard", start + 1)
        self._bar = tqdm(total=total, initial=start, desc="train", unit="step", disable=None)
        self._reset(list(pending))

    def _reset(self, pending: list[dict[str, float]]) -> None:
        self._before = pending
        self._steps: list[tuple[int, Metrics]] = []
        self._waited, self._since = 0.0, time.perf_counter()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Context for waiting on data; its time counts as `data_wait`."""
        started = time.perf_counter()
        yield
        self._waited += time.perf_counter() - started

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Context whose time does not count as training."""
        started = time.perf_counter()
        yield
        self._since += time.perf_counter() - started

    def add(self, step: int, metrics: Metrics) -> None:
        """Add the metrics of a step, counted from 1. They are fetched from the device only to be written."""
        self._steps.append((step, metrics))
        self._bar.update()
        if step % self._every == 0 or step == self._total:
            self._write(step)

    def pending(self, last: int) -> list[dict[str, float]]:
        """The metrics of each step up to `last` that have not been written yet."""
        steps = jax.device_get([metrics for step, metrics in self._steps if step <= last])
        return self._before + [{name: float(value) for name, value in s.items()} for s in steps]

    def _write(self, step: int) -> None:
        seconds = time.perf_counter() - self._since
        row = means(self.pending(step))
        row["learning_rate"] = float(self._rate(step - 1))
        row["frames_per_second"] = self._frames * len(self._steps) / seconds
        row["data_wait"] = self._waited / seconds
        append_row(self._path, {"step": step, **row})
        self._board.add(step, {f"train/{name}": value for name, value in row.items() if value is not None})
        line = summary(row)
        self._bar.set_postfix_str(line)
        if self._bar.disable:
            print(f"step {step}/{self._total}  {line}", flush=True)
        self._reset([])

    def close(self) -> None:
        self._bar.close()
        self._board.close()


class SilentLog:
    """A `MetricsLog` that writes nothing, for all processes except the first."""

    def waiting(self) -> contextlib.nullcontext[None]:
        return contextlib.nullcontext()

    def paused(self) -> contextlib.nullcontext[None]:
        return contextlib.nullcontext()

    def add(self, step: int, metrics: Metrics) -> None:
        pass

    def pending(self, last: int) -> list[dict[str, float]]:
        return []

    def close(self) -> None:
        pass


def means(steps: Sequence[dict[str, float]]) -> Row:
    """Average the metrics of steps into a row, with the numbers of skipped steps and pairs.

    Bad steps are left out of the means. A mean is None if all steps are bad.
    """
    good = [metrics for metrics in steps if not metrics["bad"]]
    names = sorted(steps[0].keys() - {"bad", "skipped_pairs", "signal"})
    row: Row = {name: float(np.mean([metrics[name] for metrics in good])) if good else None for name in names}
    row["skipped_steps"] = len(steps) - len(good)
    row["skipped_pairs"] = int(sum(m["skipped_pairs"] for m in steps))
    return row


SHOWN = (("loss", "loss", ".3f"), ("class", "cls_accuracy", ".2f"), ("match", "match_accuracy", ".2f"))


def summary(row: Row) -> str:
    """Format a row as one line for the terminal."""
    words = [f"{word} {row[name]:{form}}" for word, name, form in SHOWN if row.get(name) is not None]
    words.append(f"{row['frames_per_second']:.0f} frames/s")
    words += [
        f"skipped {row[f'skipped_{kind}']} {kind}" for kind in ("steps", "pairs") if row[f"skipped_{kind}"]
    ]
    return "  ".join(words)


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row to a file of rows."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); {WORKDIR}") from None


def drop_rows_after(path: Path, step: int) -> None:
    """Remove rows after `step`, which the resumed run will write again, and a truncated last line.

    Other lines that are no rows are removed too, and counted in a line to the user.
    """
    if not path.exists():
        return
    if not path.is_file():
        raise UserError(f"{path}: is no file; remove it or choose another --workdir")
    strange = 0
    with whole(path, WORKDIR) as partial, open(path, "rb") as source, open(partial, "wb") as kept:
        for line in lines(source):
            number = step_of(line)
            if number is None:
                strange += line.endswith(b"\n")
            elif number <= step:
                kept.write(line.rstrip(b"\r\n") + b"\n")
    if strange:
        print(printable(f"{path}: {strange} lines that are no rows of metrics are left out"))


def last_step(path: Path) -> int:
    """The largest step of the rows of a file; 0 if there is none."""
    if not path.exists():
        return 0
    with open(path, "rb") as source:
        return max(filter(None, map(step_of, lines(source))), default=0)


def lines(source: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file, each cut to `LONGEST` bytes and a line break."""
    while line := source.readline(LONGEST):
        part = line
        while part and not part.endswith(b"\n"):
            part = source.readline(LONGEST)
        yield line if part is line else line + part[-1:]


def step_of(line: bytes) -> int | None:
    """The step of a row; None if the line is no row."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # not UTF-8, not JSON, or a number of too many digits
        return None
    step = row.get("step") if isinstance(row, dict) else None
    return step if type(step) is int and step >= 0 else None
