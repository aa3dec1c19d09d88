"""Detect and report training steps with a non-finite loss or gradient."""

import logging
from collections.abc import Sequence

import jax
import numpy as np

from masktrack_jax.data.batches import Provenance
from masktrack_jax.data.vis import Video
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.signals import Interruption
from masktrack_jax.training.step import Metrics

IN_A_ROW = 50  # bad steps in a row after which "skip" stops the run too


class BadStep(UserError):
    """A step that stops the run."""


class Watch:
    """Detects steps with a non-finite loss or gradient (see `step.guarded`).

    Checks each step one step late, so the host never waits for the device. All processes detect the same
    step, and a signal received by one process reaches all.
    """

    def __init__(self, videos: Sequence[Video], on_nan: str, interruption: Interruption) -> None:
        self._videos, self._on_nan, self._interruption = videos, on_nan, interruption
        self._last: tuple[int, Provenance, Metrics] | None = None
        self._bad_in_a_row = 0

    def add(self, step: int, provenance: Provenance, metrics: Metrics) -> None:
        """Record a step and check the previous one. Raises a `BadStep` if the previous one stops the run."""
        last, self._last = self._last, (step, provenance, metrics)
        if last is not None:
            self._check(*last)

    def finish(self) -> None:
        """Check the last step."""
        if self._last is not None:
            self._check(*self._last)
            self._last = None

    def _check(self, step: int, provenance: Provenance, metrics: Metrics) -> None:
        self._interruption.agree(int(metrics["signal"]))
        if not metrics["bad"]:
            self._bad_in_a_row = 0
            return
        self._bad_in_a_row += 1
        problem = f"step {step}: {', '.join(_not_finite(metrics))}; {self._pairs(provenance)}"
        if self._on_nan == "stop":
            raise BadStep(
                f"{problem}; the state before this step is saved: correct these frames or the learning rate, "
                "or skip such steps with config.train.on_nan=skip"
            )
        if self._bad_in_a_row == IN_A_ROW:
            raise BadStep(f"{problem}; so were the previous {IN_A_ROW - 1} steps; lower the learning rate")
        logging.getLogger(__name__).warning("step skipped: %s", problem)

    def _pairs(self, provenance: Provenance) -> str:
        """The videos and frames of a batch, as text."""
        columns = (column.tolist() for column in provenance[:3])
        pairs = (f"{self._videos[v].name} {key} and {reference}" for v, key, reference in zip(*columns))
        return f"its videos and frames (from 0): {', '.join(pairs)}"


def _not_finite(metrics: Metrics) -> list[str]:
    """Describe the non-finite losses of a step, or else its total loss and gradient."""
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    parts = [name for name in values if name.startswith("loss_") and not np.isfinite(values[name])]
    return [f"{name} is {values[name]}" for name in parts or ("loss", "gradient_norm")]
