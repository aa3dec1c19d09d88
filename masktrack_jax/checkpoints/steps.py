"""The checkpoints of a run: one step folder each (see `store`), written in the background."""

import contextlib
import dataclasses
import os
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
from masktrack_jax.checkpoints.metadata import (
    KEY_DATA,
    Metadata,
    first_line,
    has_key_data,
    read_metadata,
    read_pending,
)
from masktrack_jax.checkpoints.mirror import mirror_of
from masktrack_jax.checkpoints.store import State, only_this_process, system_reason, variables_of
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import make_folder
from masktrack_jax.runtime.processes import as_global, as_local, barrier, broadcast, is_first

_print_unraisable, _failed = sys.unraisablehook, threading.Event()


def _unless_failed(unraisable: Any) -> None:
    """Print an exception that Python cannot raise, except those of the writes of a failed checkpoint."""
    if str(unraisable.exc_value) != "Event loop is closed" and not _failed.is_set():
        _print_unraisable(unraisable)


sys.unraisablehook = _unless_failed


class Checkpoints:
    """The checkpoints of a working folder; a context manager that waits for unfinished writes.

    If the folder is the local one of a run at a URL (`mirror`), a checkpoint is saved when it is there. Each
    process of such a run has a folder of its own, and the first one writes.
    """

    def __init__(self, folder: str | Path, *, keep: int = 2) -> None:
        self._mirror = mirror_of(Path(folder))
        self._alone = self._mirror is not None and jax.process_count() > 1
        self._skips = self._alone and not is_first()
        # Orbax calls this on the first process when all have written, before it renames the temporary folder.
        before_rename = ocp.AsyncOptions(post_finalization_callback=self._finish)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, cleanup_tmp_directories=True, async_options=before_rename
        )
        if self._alone:  # then Orbax does not create the folder itself
            options = dataclasses.replace(options, multiprocessing_options=only_this_process(), create=False)
        self._saved = self._saving = 0  # the newest steps whose writing has ended and begun since the start
        self._manager = ocp.CheckpointManager(make_folder(folder).resolve(), options=options)

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
        if self._skips:
            self._saved, self._saving = self._saving, step
            return
        # Of arrays on the devices of all processes, this process would write a part only.
        state = jax.device_get(_with_key_data(state)) if self._alone else as_global(state)
        progress = {"step": state.step, "key": state.key, "opt_state": state.opt_state}
        about = Metadata(config, list(categories), step).to_json() | {"pending": list(pending)}
        about |= {KEY_DATA: True} if self._alone else {}
        if self._mirror:
            self._mirror.settle()
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
        """The newest step that is saved; 0 if there is none."""
        if self._skips:
            return self._saving
        if self._mirror:
            return self._mirror.saved()
        return self._saving if (self._manager.directory / str(self._saving)).exists() else self._saved

    def wait(self) -> None:
        """Wait until all checkpoints are saved. Raises a UserError if one cannot be written."""
        with self._writing():
            self._manager.wait_until_finished()
        if self._mirror:
            self._mirror.flush()

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
        for folder, error in damaged if is_first() or self._alone else ():
            aside, number = folder.with_name(f"damaged-{folder.name}"), 1
            while os.path.lexists(aside):
                number += 1
                aside = folder.with_name(f"damaged-{folder.name}.{number}")
            try:
                os.rename(folder, aside)
            except OSError as reason:
                raise UserError(f"{error}; it cannot be renamed ({reason.strerror})") from None
            print(f"{error}; renamed to {aside.name}, the run resumes from the previous checkpoint")
        if damaged:
            barrier()
            self._manager.reload()

    def restore(self, step: int, state: State) -> State:
        """The `TrainState` of a step, with the shapes and on the devices of `state`."""
        folder = self._manager.directory / str(step)
        try:
            key_data = has_key_data(folder)
            like = as_global(_with_key_data(state) if key_data else state)
            progress = {"step": like.step, "key": like.key, "opt_state": like.opt_state}
            wanted = jax.tree.map(ocp.utils.to_shape_dtype_struct, (variables_of(like), progress))
            items = ocp.args.Composite(
                variables=ocp.args.StandardRestore(wanted[0]), progress=ocp.args.StandardRestore(wanted[1])
            )
            got = self._manager.restore(step, args=items)
        except Exception as error:  # Orbax, TensorStore and the file system raise many types
            raise UserError(
                f"{folder}: is damaged or belongs to another run ({first_line(error)}); use another --workdir"
            ) from None
        stats = got.variables.get("batch_stats", {})
        restored = state._replace(params=got.variables["params"], batch_stats=stats, **got.progress)
        restored = as_local(restored)
        if key_data:
            key = jax.random.wrap_key_data(restored.key, impl=jax.random.key_impl(state.key))
            restored = restored._replace(key=key)
        return restored


def _with_key_data(state: State) -> State:
    return state._replace(key=jax.random.key_data(state.key))


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
