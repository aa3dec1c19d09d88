"""Steps whose loss or gradient is not finite: they change nothing, and are named."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from masktrack_jax.runtime.errors import UserError
from masktrack_jax.training.step import AXIS

BESIDES = ("step", "signal", "skipped")  # of a batch: not for the network
IN_A_ROW = 50  # steps; then "skip" gives up too


def guarded(step, on_nan):
    """`step(state, batch)` that changes no parameter where its loss or gradient is not finite.

    The batch has besides `step` (): how many steps were made before it; `signal` (): the signal to end that
    its process has noted, or 0; and `skipped` (B,), see data/pipeline.py. With `on_nan` "skip" a bad step
    counts as made. With "stop" it does not, and since the batches after it are then for another state, they
    change nothing either: the host may find out late and still has the last good state. Adds the metrics
    `bad`, 0 or 1, and of all processes `signal` and `skipped_pairs`, their number.
    """

    def run(state, batch):
        due = batch["step"] == state.step
        new, metrics = step(state, {name: array for name, array in batch.items() if name not in BESIDES})
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["gradient_norm"])
        good = finite & due
        params, opt_state = jax.tree.map(
            lambda ours, theirs: jnp.where(good, ours, theirs),
            (new.params, new.opt_state),
            (state.params, state.opt_state),
        )
        made = due if on_nan == "skip" else good
        number = jnp.where(made, new.step, state.step)
        new = new._replace(step=number, params=params, opt_state=opt_state)
        signal = lax.pmax(batch["signal"], AXIS)
        skipped = lax.psum(batch["skipped"].sum(), AXIS)
        return new, metrics | {"bad": 1.0 - finite, "signal": signal, "skipped_pairs": skipped}

    return run


class BadStep(UserError):
    """A step after which a run stops."""


class Watch:
    """Finds the bad steps of a run, each when the next one is under way: the device is not waited for.

    So it is for all processes, at the same step, and so it finds the signal that one of them has noted.
    """

    def __init__(self, videos, on_nan, interruption):
        self._videos, self._on_nan, self._interruption = videos, on_nan, interruption
        self._last, self._bad_in_a_row = None, 0

    def add(self, step, batch, metrics):
        """Note a step and look at the one before it. Raises a BadStep that names it, if to stop."""
        last, self._last = self._last, (step, batch, metrics)
        if last is not None:
            self._look(*last)

    def finish(self):
        """Look at the last step."""
        if self._last is not None:
            self._look(*self._last)
            self._last = None

    def _look(self, step, batch, metrics):
        self._interruption.agree(int(metrics["signal"]))
        if not metrics["bad"]:
            self._bad_in_a_row = 0
            return
        self._bad_in_a_row += 1
        said = f"step {step}: {', '.join(_not_finite(metrics))}; {self._pairs(batch)}"
        if self._on_nan == "stop":
            raise BadStep(
                f"{said}; what was before this step is saved: correct these frames or the learning rate, or "
                "go on without such steps by config.train.on_nan=skip"
            )
        if self._bad_in_a_row == IN_A_ROW:
            raise BadStep(f"{said}; so were the {IN_A_ROW - 1} steps before; lower the learning rate")
        logging.getLogger(__name__).warning("step skipped: %s", said)

    def _pairs(self, batch):
        """The videos and frames of a batch, in words."""
        columns = (batch[name].tolist() for name in ("video_index", "key_frame", "reference_frame"))
        pairs = (f"{self._videos[v].name} {key} and {reference}" for v, key, reference in zip(*columns))
        return f"its videos and frames (from 0): {', '.join(pairs)}"


def _not_finite(metrics):
    """What of a step's losses and gradient is not finite, in words."""
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    parts = [name for name in values if name.startswith("loss_") and not np.isfinite(values[name])]
    return [f"{name} is {values[name]}" for name in parts or ("loss", "gradient_norm")]
