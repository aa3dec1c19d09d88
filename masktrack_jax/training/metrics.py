"""Metrics of a run: `WORKDIR/metrics.jsonl`, TensorBoard, and a progress bar or lines."""

import json
import math
import time

import jax
import numpy as np
from tqdm import tqdm

from masktrack_jax.runtime.files import whole


class MetricsLog:
    """Collects the metrics of steps and writes their means every `every` steps.

    `rate(step)` gives the learning rate; `frames` is the number of frames a step reads; `pending` is what the
    run that this one goes on from had collected and not written.
    """

    def __init__(self, workdir, *, every, start, total, frames, rate, pending=()):
        from tensorboardX import SummaryWriter

        self._every, self._total, self._frames, self._rate = every, total, frames, rate
        drop_rows_after(workdir / "metrics.jsonl", start)
        self._file = open(workdir / "metrics.jsonl", "a", buffering=1)  # noqa: SIM115 – closed in close()
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1)
        self._bar = tqdm(total=total, initial=start, desc="train", unit="step", disable=None)
        self._reset(list(pending))

    def _reset(self, pending):
        self._before = pending
        self._steps, self._waited, self._since = [], 0.0, time.perf_counter()

    def waited(self, seconds):
        """Count time in which the step had no data."""
        self._waited += seconds

    def paused(self, seconds):
        """Leave out time in which the run did something else."""
        self._since += seconds

    def add(self, step, metrics):
        """Metrics {name: array ()} of the step that made `step` steps in all; read only when written."""
        self._steps.append((step, metrics))
        self._bar.update()
        if step % self._every == 0 or step == self._total:
            self._write(step)

    def pending(self, last):
        """The metrics of the steps up to `last` that are not written yet: a list of {name: number}."""
        steps = jax.device_get([metrics for step, metrics in self._steps if step <= last])
        return self._before + [{name: float(value) for name, value in s.items()} for s in steps]

    def _write(self, step):
        seconds = time.perf_counter() - self._since
        row = means(self.pending(step))
        row["learning_rate"] = float(self._rate(step - 1))
        row["frames_per_second"] = self._frames * len(self._steps) / seconds
        row["data_wait"] = self._waited / seconds
        self._file.write(json.dumps({"step": step, **row}) + "\n")
        for name, value in row.items():
            if value is not None:
                self._board.add_scalar(f"train/{name}", value, step)
        shown = in_words(row)
        self._bar.set_postfix_str(shown)
        if self._bar.disable:
            print(f"step {step}/{self._total}  {shown}", flush=True)
        self._reset([])

    def close(self):
        self._bar.close()
        self._file.close()
        self._board.close()


class Quiet:
    """In the place of a `MetricsLog` in the processes that write none."""

    def waited(self, seconds):
        pass

    def paused(self, seconds):
        pass

    def add(self, step, metrics):
        pass

    def pending(self, last):
        return []

    def close(self):
        pass


def means(steps):
    """The row of some steps [{name: number}]: means, without the bad ones, and how much was skipped.

    A mean is None where all steps are bad.
    """
    good = [metrics for metrics in steps if not metrics["bad"]]
    names = sorted(steps[0].keys() - {"bad", "skipped_pairs", "signal"})
    row = {name: float(np.mean([metrics[name] for metrics in good])) if good else None for name in names}
    skipped = {"steps": len(steps) - len(good), "pairs": int(sum(m["skipped_pairs"] for m in steps))}
    return row | {f"skipped_{name}": count for name, count in skipped.items()}


SHOWN = (("loss", "loss", ".3f"), ("class", "cls_accuracy", ".2f"), ("match", "match_accuracy", ".2f"))


def in_words(row):
    """A row as a person sees it while the run goes."""
    words = [f"{word} {row[name]:{form}}" for word, name, form in SHOWN if row.get(name) is not None]
    words.append(f"{row['frames_per_second']:.0f} frames/s")
    words += [
        f"skipped {row[f'skipped_{kind}']} {kind}" for kind in ("steps", "pairs") if row[f"skipped_{kind}"]
    ]
    return "  ".join(words)


def drop_rows_after(path, step):
    """Leave out the rows of a metrics.jsonl that the run, going on from `step`, will write again.

    So is what was cut off while it was written.
    """
    if path.exists():
        kept = "".join(f"{line}\n" for line in path.read_text().splitlines() if _step_of(line) <= step)
        with whole(path, "choose another --workdir") as partial:
            partial.write_text(kept)


def _step_of(line):
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:
        return math.inf
