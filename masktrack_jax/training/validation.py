"""Score the validation split during a run, and keep the parameters with the best score."""

import numbers
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from masktrack_jax.checkpoints import store
from masktrack_jax.checkpoints.metadata import Metadata, read_scores
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.processes import broadcast, is_first
from masktrack_jax.training.board import Board
from masktrack_jax.training.metrics import append_row, drop_rows_after, last_step
from masktrack_jax.training.start import Categories
from masktrack_jax.training.step import TrainState

Evaluate = Callable[[dict[str, Any]], Mapping[str, Any]]  # variables → metrics, including AP


class Validation:
    """Evaluates every `train.evaluate_every` steps and after the last one; 0 disables it.

    Numeric metrics are written to a row of `WORKDIR/validation.jsonl` and to TensorBoard. With
    `train.keep_best`, the parameters of the highest AP are stored in `WORKDIR/best`, for inference or to
    start other runs. `start` is the step at which the run starts or resumes; an evaluation at that step that
    a signal prevented is still due. All processes of a run evaluate, and the first one writes.
    """

    def __init__(
        self,
        workdir: Path,
        evaluate: Evaluate | None,
        config: ConfigDict,
        categories: Categories,
        start: int,
        total: int,
    ) -> None:
        self._evaluate, self._config, self._categories = evaluate, config, categories
        self._every, self._total = config.train.evaluate_every, total
        self._rows, self._best = workdir / "validation.jsonl", workdir / "best"
        self._board = workdir / "tensorboard" / "validation"
        self._last = 0
        if self._every:
            if evaluate is None:
                raise UserError(
                    "config.train.evaluate_every: there is no validation split with labels; set "
                    "config.data.val_annotations, or set evaluate_every to 0"
                )
            if is_first():
                drop_rows_after(self._rows, start)
                recover_variables(self._best)
            self._last = broadcast(last_step(self._rows) if is_first() else 0)
        # A new run ignores the scores that another run left in this folder.
        self._highest = read_scores(self._best).get("AP") if start else None

    def due(self, step: int) -> bool:
        """Whether the state after `step` steps must be scored and has not been scored yet."""
        wanted = self._every and (step % self._every == 0 or step == self._total)
        return bool(wanted) and step > self._last

    def score(self, state: TrainState) -> None:
        """Score `state`, write the row, and store its parameters if their AP is the highest so far."""
        assert self._evaluate is not None
        step = int(state.step)
        variables = jax.device_get(store.variables_of(state))
        scores = self._evaluate(variables)
        self._last = step
        if is_first():
            numbers_only = {k: float(value) for k, value in scores.items() if isinstance(value, numbers.Real)}
            self._write(step, variables, numbers_only)

    def _write(self, step: int, variables: dict[str, Any], scores: dict[str, float]) -> None:
        if self._config.train.keep_best and (self._highest is None or scores["AP"] > self._highest):
            metadata = Metadata(self._config, self._categories, step)
            replace_variables(self._best, variables, metadata, scores)
            self._highest = scores["AP"]
        # Written last, because a row means that everything above is complete.
        append_row(self._rows, {"step": step, **scores})
        self._show(step, scores)

    def _show(self, step: int, scores: dict[str, float]) -> None:
        board = Board(self._board, step)
        board.add(step, {f"validation/{name}": value for name, value in scores.items()})
        board.close()


def temporary_paths(path: Path) -> tuple[Path, Path]:
    """Paths of `replace_variables`: for the new files until they are complete, and for the old ones."""
    return path.with_name(f".{path.name}-new"), path.with_name(f".{path.name}-old")


def recover_variables(path: Path) -> None:
    """Complete a `replace_variables` that was killed between its two renames."""
    for there in temporary_paths(path):
        if there.exists() and not path.exists() and read_scores(there):
            there.rename(path)


def replace_variables(
    path: Path, variables: dict[str, Any], metadata: Metadata, scores: dict[str, float]
) -> None:
    """`store.write_variables` to `path`; an existing checkpoint is replaced once the new one is complete.

    Raises a UserError if it cannot be written.
    """
    new, old = temporary_paths(path)
    try:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        store.write_variables(new, variables, metadata, scores)
        if path.exists():
            path.rename(old)
        new.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    except Exception as error:  # Orbax and the operating system raise many types
        reason = store.system_reason(error)
        raise UserError(
            f"{path}: cannot be written ({reason}); free disk space, or move what lies there"
        ) from None
