"""Batches of training pairs.

Batch k depends only on (seed, k): not on the number of threads or processes that load it, nor on the step at
which a run started or resumed.
"""

import logging
import os
import sys
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from masktrack_jax.data.batches import PairBatch, map_arrays
from masktrack_jax.data.options import PairOptions
from masktrack_jax.data.pairs import PairLoader, candidates, video_bucket, warn_of_crowded_frames
from masktrack_jax.data.vis import VisDataset
from masktrack_jax.data.workers import in_processes
from masktrack_jax.runtime.errors import UserError

# Separate random streams of one seed.
_ORDER, _SAMPLE = 0, 1

TRIES = 10  # unreadable pairs in a row after which `on_error` "skip" raises too


class ScheduledPair(NamedTuple):
    """A key frame, and the seed of the random draws for its sample."""

    video_index: int
    key_frame: int
    seed: tuple[int, ...]


class PairSchedule:
    """The key frame of every row of every batch, for an unlimited number of steps.

    An epoch shows every candidate once, except the few that do not fill a batch. A bucket with fewer
    candidates than a batch repeats them to fill one. All pairs of a batch share one bucket. Each epoch has a
    new random order.
    """

    def __init__(self, dataset: VisDataset, options: PairOptions, *, seed: int, batch_size: int) -> None:
        if batch_size < 1:
            raise UserError(f"batch size {batch_size} is not positive")
        self.seed, self.batch_size = seed, batch_size
        self.candidates = candidates(dataset)
        self._buckets = [video_bucket(video, options) for video in dataset.videos]
        of_candidate = np.array([self._buckets[index] for index in self.candidates[:, 0]])
        buckets = sorted(set(map(tuple, of_candidate.tolist())))
        self._members = {bucket: np.flatnonzero((of_candidate == bucket).all(axis=1)) for bucket in buckets}
        self.steps_per_epoch = sum(max(len(members) // batch_size, 1) for members in self._members.values())
        self._epochs: dict[int, np.ndarray] = {}

    def epoch(self, number: int) -> np.ndarray:
        """The batches of an epoch: (steps_per_epoch, batch_size) int64, rows of `candidates`."""
        if number not in self._epochs:
            rng = np.random.default_rng([self.seed, _ORDER, number])
            batches = []
            for members in self._members.values():
                order = rng.permutation(members)
                steps = max(len(members) // self.batch_size, 1)
                batches.append(np.resize(order, (steps, self.batch_size)))
            # Prefetching spans at most two epochs; older ones are dropped.
            kept = {n: order for n, order in list(self._epochs.items()) if abs(n - number) <= 1}
            self._epochs = {**kept, number: rng.permutation(np.concatenate(batches))}
        return self._epochs[number]

    def __len__(self) -> int:
        return sys.maxsize // 2

    def __getitem__(self, place: int) -> ScheduledPair:
        """The pair at position `place` of the run; batch k holds the positions k·B … k·B+B-1."""
        step, row = divmod(int(place), self.batch_size)
        epoch, step = divmod(step, self.steps_per_epoch)
        video_index, frame = self.candidates[self.epoch(epoch)[step, row]]
        return ScheduledPair(int(video_index), int(frame), (self.seed, _SAMPLE, int(place)))

    def replacement(self, pair: ScheduledPair, attempt: int) -> ScheduledPair:
        """A random pair of the same bucket to replace `pair`; each attempt (from 1) draws another one."""
        members = self._members[self._buckets[pair.video_index]]
        seed = (*pair.seed, attempt)
        video_index, frame = self.candidates[np.random.default_rng((*seed, 0)).choice(members)]
        return ScheduledPair(int(video_index), int(frame), seed)


class _Rows:
    """The slice `rows` of every batch of a schedule, for one of several processes."""

    def __init__(self, schedule: PairSchedule, rows: slice) -> None:
        self._schedule, self._first, self._count = schedule, rows.start, rows.stop - rows.start

    def __len__(self) -> int:
        return len(self._schedule) // self._schedule.batch_size * self._count

    def __getitem__(self, place: int) -> ScheduledPair:
        step, row = divmod(int(place), self._count)
        return self._schedule[step * self._schedule.batch_size + self._first + row]


class _Load:
    """Loads a scheduled pair.

    With `skip`, another pair replaces an unreadable one, and each reason is logged once. Batch k then also
    depends on the files, but still not on the process that loads it.
    """

    def __init__(self, loader: PairLoader, schedule: PairSchedule, skip: bool) -> None:
        self.loader, self.schedule, self.skip = loader, schedule, skip
        self._logged: set[str] = set()

    def __call__(self, pair: ScheduledPair) -> PairBatch:
        for attempt in range(TRIES):
            video_index, frame, seed = self.schedule.replacement(pair, attempt) if attempt else pair
            try:
                sample = self.loader(video_index, frame, np.random.default_rng(seed))
            except UserError as error:
                if not self.skip:
                    raise
                self._log(problem := str(error))
            else:
                provenance = sample.provenance._replace(skipped=np.int32(attempt))
                return sample._replace(provenance=provenance)
        raise UserError(f"{TRIES} pairs in a row cannot be read; the last one: {problem}")

    def _log(self, problem: str) -> None:
        if problem not in self._logged:
            self._logged.add(problem)
            logging.getLogger(__name__).warning("training pairs are skipped: %s", problem)


def steps_per_epoch(dataset: VisDataset, options: PairOptions, *, batch_size: int) -> int:
    """The number of batches that show every candidate once (see `PairSchedule`)."""
    return PairSchedule(dataset, options, seed=0, batch_size=batch_size).steps_per_epoch


@runtime_checkable
class BatchIterator(Protocol):
    """An iterator of batches that must be closed."""

    def __next__(self) -> PairBatch: ...

    def close(self) -> None: ...


def training_batches(
    dataset: VisDataset,
    options: PairOptions,
    *,
    seed: int,
    batch_size: int,
    rows: slice | None = None,
    start_step: int = 0,
    workers: int = 0,
    threads: int | None = None,
    on_error: str = "stop",
) -> BatchIterator:
    """An endless iterator of batches from step `start_step` on; `close()` it when done.

    A batch stacks the arrays of several `PairBatch` of `PairLoader`; all its pairs share one bucket. With
    `rows`, only this slice of every batch is loaded. `workers` 0 loads in `threads` threads of this process
    (default: one per core, at most 8), a positive number in that many processes. Raises UserError. The
    iterator also raises it for an unreadable frame, unless `on_error` is "skip" (see `_Load`).
    """
    import grain

    warn_of_crowded_frames(dataset, options)
    schedule = PairSchedule(dataset, options, seed=seed, batch_size=batch_size)
    load = _Load(PairLoader(dataset, options), schedule, skip=on_error == "skip")
    rows = rows or slice(0, batch_size)
    samples = grain.MapDataset.source(_Rows(schedule, rows)).map(load)
    batches = samples.batch(rows.stop - rows.start, drop_remainder=True)[start_step:]
    threads = threads or min(os.cpu_count() or 1, 8)
    reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, 4))
    batches = batches.to_iter_dataset(reading)
    if workers:
        _mark_flags_parsed()
        # Shared memory must be released before the interpreter exits.
        batches = in_processes(batches, workers).map(lambda batch: map_arrays(np.array, batch))
    return iter(batches)


def _mark_flags_parsed() -> None:
    """Mark the absl flags as parsed.

    Grain 0.2.18 reads them when it starts processes, which fails outside `absl.app.run` (google/grain#1355).
    """
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
