"""A trace of a few steps of a run, for TensorBoard and XProf (`train.py --profile STEPS`)."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import jax

from masktrack_jax.runtime.processes import is_first
from masktrack_jax.training.step import Metrics

WARM_UP = 2  # steps before the trace: the first one compiles


class Profile:
    """Traces `steps` steps of a run to `folder`, after the first ones; 0 traces nothing. Process 0 writes."""

    def __init__(self, folder: Path, steps: int) -> None:
        self._folder = folder
        self._before, self._left = WARM_UP, steps if is_first() else 0
        self._running, self._traced = False, 0

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """The context of a step and of the wait for its batch."""
        if not self._left:
            yield
            return
        if not self._before and not self._running:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # calls of Python functions would hide the rest
            jax.profiler.start_trace(self._folder, profiler_options=options)
            self._running = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield
        if self._running:
            self._traced, self._left = self._traced + 1, self._left - 1
        else:
            self._before -= 1

    def finish(self, metrics: Metrics) -> None:
        """Write the trace if a step with these metrics is its last one."""
        if self._running and not self._left:
            jax.block_until_ready(metrics)
            self.close()

    def close(self) -> None:
        """Write the trace of the steps so far."""
        if not self._running:
            return
        self._running, self._left = False, 0
        try:
            jax.profiler.stop_trace()
        except Exception as error:  # of the profiler, which raises many types: training goes on
            print(f"{self._folder}: the trace cannot be written ({error})", file=sys.stderr)
            return
        steps = f"{self._traced} step{'s' * (self._traced > 1)}"
        print(f"profile of {steps}: {self._folder}, for tensorboard --logdir {self._folder}")
