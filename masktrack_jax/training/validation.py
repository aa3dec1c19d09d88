"""Scores on the validation split while a run goes on, and the parameters that scored best."""

import json
import numbers
import shutil

import jax

from masktrack_jax.checkpoints import store
from masktrack_jax.checkpoints.metadata import Metadata, read_scores
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.processes import barrier, is_first
from masktrack_jax.training.metrics import drop_rows_after


class Validation:
    """Evaluates every `train.evaluate_every` steps and after the last one, where that is positive.

    `evaluate(variables)` gives metrics {name: value}, among them AP; its numbers are a row of
    `WORKDIR/validation.jsonl` and in TensorBoard. With `train.keep_best` the parameters of the highest AP are
    in `WORKDIR/best`, for inference and for starting anew. `start`: the step that the run goes on from; an
    evaluation that a signal kept from being made then is still due. All processes of a run evaluate, the
    first writes.
    """

    def __init__(self, workdir, evaluate, config, categories, start, total):
        self._evaluate, self._config, self._categories = evaluate, config, categories
        self._every, self._total = config.train.evaluate_every, total
        self._rows, self._best = workdir / "validation.jsonl", workdir / "best"
        self._board = workdir / "tensorboard" / "validation"
        self._last = 0
        if self._every:
            if evaluate is None:
                raise UserError(
                    "config.train.evaluate_every: there is no validation split with labels; name one by "
                    "config.data.val_annotations, or set it to 0"
                )
            if is_first():
                drop_rows_after(self._rows, start)
                recover_variables(self._best)
            barrier()
            if self._rows.exists():
                self._last = max((json.loads(row)["step"] for row in self._rows.open()), default=0)
        # Another run in this folder may have left its own.
        self._highest = read_scores(self._best).get("AP") if start else None

    def due(self, step):
        """Whether the state after `step` steps is to be scored and has not been."""
        wanted = self._every and (step % self._every == 0 or step == self._total)
        return bool(wanted) and step > self._last

    def make(self, state):
        """Score `state`, write the row, and keep its parameters where no others scored as high."""
        step = int(state.step)
        variables = jax.device_get(store.variables_of(state))
        scores = self._evaluate(variables)
        self._last = step
        if is_first():
            numbers_only = {k: float(value) for k, value in scores.items() if isinstance(value, numbers.Real)}
            self._write(step, variables, numbers_only)

    def _write(self, step, variables, scores):
        if self._config.train.keep_best and (self._highest is None or scores["AP"] > self._highest):
            about = Metadata(self._config, self._categories, step)
            replace_variables(self._best, variables, about, scores)
            self._highest = scores["AP"]
        # Last: where this row is, all of the above is done.
        with open(self._rows, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **scores}) + "\n")
        self._show(step, scores)

    def _show(self, step, scores):
        from tensorboardX import SummaryWriter

        board = SummaryWriter(str(self._board), purge_step=step)
        for name, value in scores.items():
            board.add_scalar(f"validation/{name}", value, step)
        board.close()


def beside(path):
    """Where `replace_variables` has the new ones until they are whole, and the old ones until they are."""
    return [path.with_name(f".{path.name}-{which}") for which in ("new", "old")]


def recover_variables(path):
    """Finish what `replace_variables` was killed in, between its two renames."""
    for there in beside(path):
        if there.exists() and not path.exists() and read_scores(there):
            there.rename(path)


def replace_variables(path, variables, about, scores):
    """`store.write_variables` in the place of what is at `path`, once it is whole, or a UserError."""
    new, old = beside(path)
    try:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        store.write_variables(new, variables, about, scores)
        if path.exists():
            path.rename(old)
        new.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    except Exception as error:  # Orbax's own kinds, or what the system says
        reason = store.system_reason(error)
        raise UserError(f"{path}: cannot be written ({reason}); make room") from None
