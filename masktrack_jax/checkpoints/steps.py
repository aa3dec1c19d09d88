"""The checkpoints of a run: one step folder each (see `store`), written in the background."""

import contextlib
import shutil
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from masktrack_jax.checkpoints.digests import check_digests, write_digests
from masktrack_jax.checkpoints.metadata import Metadata, first_line, read_metadata, read_pending
from masktrack_jax.checkpoints.store import State, system_reason, variables_of
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.processes import as_global, as_local, barrier, broadcast, is_first

_print_unraisable, _failed = sys.unraisablehook, threading.Event()


def _unless_failed(unraisable: Any) -> None:
    """Print an exception that Python cannot raise, except those of the writes of a failed checkpoint."""
    if str(unraisable.exc_value) != "Event loop is closed" and not _failed.is_set():
        _print_unraisable(unraisable)


sys.unraisablehook = _unless_failed


class Checkpoints:
    """The checkpoints of a working folder; a context manager that waits for unfinished writes."""

    def __init__(self, folder: str | Path, *, keep: int = 2) -> None:
        # Orbax calls this on the first process when all have written, before it renames the temporary folder.
        before_rename = ocp.AsyncOptions(post_finalization_callback=self._finish)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, cleanup_tmp_directories=True, async_options=before_rename
        )
        self._saved = self._saving = 0  # the newest steps whose writing has ended and begun since the start
        self._manager = ocp.CheckpointManager(Path(folder).resolve(), options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
            else:  # the first error is the one to report
                with contextlib.suppress(UserError):
                    self.wait()
        finally:
            with contextlib.suppress(Exception):  # it waits again
                self._manager.close()

    def latest(self) -> int | None:
        """The newest step, or None."""
        return self._manager.latest_step()

    def save(
        self,
        state: State,
        config: ConfigDict,
        categories: Sequence[tuple[int, str]],
        pending: Sequence[Any] = (),
    ) -> None:
        """Write a `TrainState` in the background, unless its step already has a checkpoint.

        `pending`: metrics of earlier steps that are not yet in metrics.jsonl. Raises a UserError if this
        checkpoint or the previous one cannot be written; older ones remain.
        """
        step = int(state.step)
        if step == self.latest():
            return
        state = as_global(state)
        progress = {"step": state.step, "key": state.key, "opt_state": state.opt_state}
        about = Metadata(config, list(categories), step).to_json() | {"pending": list(pending)}
        with self._writing():
            self._manager.wait_until_finished()
            self._saved, self._saving = self._saving, step
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    variables=ocp.args.StandardSave(variables_of(state)),
                    progress=ocp.args.StandardSave(progress),
                    about=ocp.args.JsonSave(about),
                ),
            )

    def _finish(self) -> None:
        """Add the digests to the temporary folder of the step that is being written."""
        (folder,) = self._manager.directory.glob(f"{self._saving}.*tmp*")
        write_digests(Path(folder))

    def saved(self) -> int:
        """The newest step that this process has written completely; 0 if there is none."""
        return self._saving if (self._manager.directory / str(self._saving)).exists() else self._saved

    def wait(self) -> None:
        """Wait until all checkpoints are written. Raises a UserError if one cannot be written."""
        with self._writing():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax, TensorStore and the file system raise many types
            # At its end, Python prints a traceback and a warning for each write that Orbax has not awaited.
            _failed.set()
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            raise UserError(
                f"{self._manager.directory}: a checkpoint cannot be written ({system_reason(error)}); free "
                "disk space and run the same command again; it resumes from the previous checkpoint"
            ) from None

    def restore_newest(self, state: State, check: Callable[[Metadata], None]) -> tuple[State, list[Any]]:
        """The `TrainState` of the newest checkpoint that can be read, and its `pending` metrics.

        Damaged newer checkpoints are reported and renamed to `damaged-STEP`. `check(metadata)` raises if the
        run must not resume from that checkpoint. Raises a UserError if no checkpoint can be read.
        """
        damaged: list[tuple[Path, UserError]] = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            folder = self._manager.directory / str(step)
            try:
                _check_all(folder)
                metadata, pending = read_metadata(folder), read_pending(folder)
            except UserError as error:
                damaged.append((folder, error))
                continue
            check(metadata)
            try:
                restored = self.restore(step, state)
            except UserError as error:
                damaged.append((folder, error))
                continue
            self._set_aside(damaged)
            return restored, pending
        raise damaged[0][1]

    def _set_aside(self, damaged: Sequence[tuple[Path, UserError]]) -> None:
        for folder, error in damaged if is_first() else ():
            aside = folder.with_name(f"damaged-{folder.name}")
            if aside.exists():
                shutil.rmtree(aside)
            folder.rename(aside)
            print(f"{error}; renamed to {aside.name}, the run resumes from the previous checkpoint")
        if damaged:
            barrier()
            self._manager.reload()

    def restore(self, step: int, state: State) -> State:
        """The `TrainState` of a step, with the shapes and on the devices of `state`."""
        like = as_global(state)
        progress = {"step": like.step, "key": like.key, "opt_state": like.opt_state}
        wanted = jax.tree.map(ocp.utils.to_shape_dtype_struct, (variables_of(like), progress))
        items = ocp.args.Composite(
            variables=ocp.args.StandardRestore(wanted[0]), progress=ocp.args.StandardRestore(wanted[1])
        )
        try:
            got = self._manager.restore(step, args=items)
        except Exception as error:  # Orbax, TensorStore and the file system raise many types
            folder = self._manager.directory / str(step)
            raise UserError(
                f"{folder}: is damaged or belongs to another run ({first_line(error)}); use another --workdir"
            ) from None
        stats = got.variables.get("batch_stats", {})
        restored = state._replace(params=got.variables["params"], batch_stats=stats, **got.progress)
        return as_local(restored)


def _check_all(folder: Path) -> None:
    """Check all digests of a step folder, once for all processes of a run."""
    problem = ""
    if is_first():
        try:
            check_digests(folder)
        except UserError as error:
            problem = str(error)
    if problem := broadcast(problem):
        raise UserError(problem)
