"""The batches of a run, on the devices before their steps, with a limit on the time that it waits for one."""

import re
import threading
from collections.abc import Iterator
from queue import SimpleQueue

from ml_collections import ConfigDict

from masktrack_jax.data import workers
from masktrack_jax.data.batches import PairBatch
from masktrack_jax.data.options import PairOptions
from masktrack_jax.data.pipeline import BatchIterator, PairSchedule, training_batches
from masktrack_jax.data.vis import VisDataset
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.processes import local_rows
from masktrack_jax.runtime.signals import Interruption, Stalled
from masktrack_jax.training.step import on_devices

AHEAD = 2  # batches on the devices, or on their way, before their steps
ANSWER = 2.0  # seconds in which a frame can be read


class NoBatch(UserError):
    """The loader gives no batch in time; the state can be saved."""


class Batches(Iterator[PairBatch]):
    """This process's rows of each batch, from step `start` on, with the pairs `on_devices`.

    The transfer to the devices starts while earlier steps run. An error of the loader is raised when the step
    of its batch is due.

    A signal may also end the loader's processes, while this process still has a few steps to run. The
    remaining batches are then loaded by threads of this process, which load the same batches. If a batch does
    not come soon after a signal, the iterator ends. Raises a `NoBatch` after `data.timeout` seconds without a
    batch.
    """

    def __init__(
        self, config: ConfigDict, dataset: VisDataset, start: int, interruption: Interruption
    ) -> None:
        self._config, self._dataset, self._interruption = config, dataset, interruption
        self._step, self._broken = start, False
        self._ahead = Ahead(self._load(config.data.workers))

    def _load(self, processes: int) -> BatchIterator:
        config = self._config
        return training_batches(
            self._dataset,
            PairOptions.from_config(config.data),
            seed=config.seed,
            batch_size=config.train.batch_size,
            rows=local_rows(config.train.batch_size),
            start_step=self._step,
            workers=processes,
            on_error=config.data.on_error,
        )

    def __next__(self) -> PairBatch:
        try:
            with self._interruption.wait(self._config.data.timeout):
                batch = self._next()
        except Stalled:
            if self._interruption.noted is None or self._interruption.shared:
                raise self._no_batch() from None
            raise StopIteration from None
        self._step += 1
        return batch

    def _next(self) -> PairBatch:
        try:
            return next(self._ahead)
        except Exception as error:
            if self._broken or self._interruption.noted is None:
                if "Worker process was terminated" in str(error):
                    raise self._killed(error) from None
                raise
            self._broken, self._ahead = True, Ahead(self._load(processes=0))
            return next(self._ahead)

    def _killed(self, error: Exception) -> UserError:
        code = re.search(r"exit code (-?\d+)", str(error))
        return self._error(
            f"step {self._step + 1}: a loader process ended with status {code[1] if code else 'unknown'}, "
            "perhaps for lack of memory",
            "use fewer config.data.workers",
        )

    def _error(self, problem: str, cure: str) -> UserError:
        """Only a single process can save: the others of a run wait for the batch of this one."""
        if self._interruption.shared:
            return UserError(f"{problem}; the run resumes from its newest checkpoint")
        return NoBatch(f"{problem}; the state before this step is saved: {cure}")

    def _no_batch(self) -> UserError:
        """The error for a batch that does not come."""
        timeout = self._config.data.timeout
        waited = "" if self._interruption.noted else f" for {timeout} seconds"
        cause = f"{path} does not answer" if (path := self._silent_frame()) else "its frames can be read"
        return self._error(
            f"step {self._step + 1}: the loader gives no batch{waited}; {cause}",
            "check the disk, or set config.data.timeout higher",
        )

    def _silent_frame(self) -> str:
        """The path of a frame of the next batch's videos that does not answer; empty if there is none."""
        config = self._config
        options = PairOptions.from_config(config.data)
        size = config.train.batch_size
        schedule = PairSchedule(self._dataset, options, seed=config.seed, batch_size=size)
        pairs = [schedule[self._step * size + row] for row in range(size)]
        readers = [Reader(self._dataset, index) for index in {pair.video_index for pair in pairs}]
        for reader in readers:
            reader.join(ANSWER / len(readers))
        return next((reader.path for reader in readers if reader.is_alive()), "")

    def close(self) -> None:
        self._ahead.close(at_once=self._interruption.noted is not None)


class Ahead(Iterator[PairBatch]):
    """Batches of a loader `on_devices`, taken by a thread: at most `AHEAD` of them wait for their steps."""

    def __init__(self, batches: BatchIterator) -> None:
        self._batches, self._room, self._closed = batches, threading.Semaphore(AHEAD), False
        self._ready: SimpleQueue[PairBatch | BaseException] = SimpleQueue()
        self._thread = threading.Thread(target=self._fill, daemon=True)
        self._thread.start()

    def __next__(self) -> PairBatch:
        ready = self._ready.get()
        if isinstance(ready, BaseException):
            raise ready
        self._room.release()
        return ready

    def _fill(self) -> None:
        """The body of the thread; ends with the first error."""
        try:
            while self._room.acquire() and not self._closed:
                self._ready.put(on_devices(next(self._batches)))
        except BaseException as error:
            self._ready.put(error)

    def close(self, at_once: bool) -> None:
        self._closed = True
        self._room.release()
        workers.close(self._batches, at_once)


class Reader(threading.Thread):
    """Opens the frames of a video, one after another; `path` is the current one."""

    def __init__(self, dataset: VisDataset, video_index: int) -> None:
        super().__init__(daemon=True)
        self._dataset, self._video, self.path = dataset, dataset.videos[video_index], ""
        self.start()

    def run(self) -> None:
        for frame in range(self._video.length):
            self.path = str(self._dataset.frame_path(self._video, frame))
            try:
                self._dataset.read_frame(self._video, frame)
            except Exception:  # an answer: the loader reports it
                continue
