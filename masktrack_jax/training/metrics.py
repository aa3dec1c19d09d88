"""Metrics of a run: `WORKDIR/metrics.jsonl`, TensorBoard, and a progress bar or lines."""

import json
import time

import jax
import numpy as np
from tqdm import tqdm


class MetricsLog:
    """Collects the metrics of steps and writes their means every `every` steps.

    `rate(step)` gives the learning rate; `frames` is the number of frames a step reads.
    """

    def __init__(self, workdir, *, every, start, total, frames, rate):
        from tensorboardX import SummaryWriter

        self._every, self._total, self._frames, self._rate = every, total, frames, rate
        drop_rows_after(workdir / "metrics.jsonl", start)
        self._file = open(workdir / "metrics.jsonl", "a", buffering=1)  # noqa: SIM115 – closed in close()
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1)
        self._bar = tqdm(total=total, initial=start, desc="train", unit="step", disable=None)
        self._reset()

    def _reset(self):
        self._steps, self._waited, self._since = [], 0.0, time.perf_counter()

    def waited(self, seconds):
        """Count time in which the step had no data."""
        self._waited += seconds

    def add(self, step, metrics):
        """Metrics {name: array ()} of the step that made `step` steps in all; read only when written."""
        self._steps.append(metrics)
        self._bar.update()
        if step % self._every == 0 or step == self._total:
            self._write(step)

    def _write(self, step):
        steps = jax.device_get(self._steps)
        seconds = time.perf_counter() - self._since
        row = {name: float(np.mean([s[name] for s in steps])) for name in sorted(steps[0])}
        row["learning_rate"] = float(self._rate(step - 1))
        row["frames_per_second"] = self._frames * len(steps) / seconds
        row["data_wait"] = self._waited / seconds
        self._file.write(json.dumps({"step": step, **row}) + "\n")
        for name, value in row.items():
            self._board.add_scalar(f"train/{name}", value, step)
        classes = f"class {row['cls_accuracy']:.2f}  " if "cls_accuracy" in row else ""
        shown = (
            f"loss {row['loss']:.3f}  {classes}match {row['match_accuracy']:.2f}  "
            f"{row['frames_per_second']:.0f} frames/s"
        )
        self._bar.set_postfix_str(shown)
        if self._bar.disable:
            print(f"step {step}/{self._total}  {shown}", flush=True)
        self._reset()

    def close(self):
        self._bar.close()
        self._file.close()
        self._board.close()


def drop_rows_after(path, step):
    """Leave out the rows of a metrics.jsonl that the run, going on from `step`, will write again."""
    if path.exists():
        rows = [line for line in path.read_text().splitlines() if json.loads(line)["step"] <= step]
        path.write_text("".join(f"{row}\n" for row in rows))
