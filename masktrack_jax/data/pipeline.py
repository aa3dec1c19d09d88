"""Batches of training pairs. Batch k is a function of (seed, k) and of nothing else: not of the number of
threads or processes that load it, and not of where the run began."""

import logging
import os
import sys

import numpy as np

from masktrack_jax.data.pairs import PairLoader, candidates, video_bucket, warn_of_crowded_frames
from masktrack_jax.runtime.errors import UserError

# Separate streams of one seed.
_ORDER, _SAMPLE = 0, 1

TRIES = 10  # pairs in a row that cannot be read, until "skip" gives up too


class PairSchedule:
    """Which frame stands in which place of which batch, for every step there will ever be.

    An epoch shows every candidate once, but for the few that fill no whole batch; a bucket with fewer
    candidates than a batch repeats them to fill one. Batches hold one bucket each, in a shuffled order. Each
    epoch is shuffled anew.
    """

    def __init__(self, dataset, options, *, seed, batch_size):
        if batch_size < 1:
            raise UserError(f"batch size {batch_size} is not positive")
        self.seed, self.batch_size = seed, batch_size
        self.candidates = candidates(dataset)
        self._buckets = [video_bucket(video, options) for video in dataset.videos]
        of_candidate = np.array([self._buckets[index] for index in self.candidates[:, 0]])
        buckets = sorted(set(map(tuple, of_candidate.tolist())))
        self._members = {bucket: np.flatnonzero((of_candidate == bucket).all(axis=1)) for bucket in buckets}
        self.steps_per_epoch = sum(max(len(members) // batch_size, 1) for members in self._members.values())
        self._epochs = {}

    def epoch(self, number):
        """The batches of an epoch: (steps_per_epoch, batch_size) int64, rows of `candidates`."""
        if number not in self._epochs:
            rng = np.random.default_rng([self.seed, _ORDER, number])
            batches = []
            for members in self._members.values():
                order = rng.permutation(members)
                steps = max(len(members) // self.batch_size, 1)
                batches.append(np.resize(order, (steps, self.batch_size)))
            # Prefetching straddles two epochs at most; older ones are dropped.
            kept = {n: order for n, order in list(self._epochs.items()) if abs(n - number) <= 1}
            self._epochs = {**kept, number: rng.permutation(np.concatenate(batches))}
            return self._epochs[number]
        return self._epochs[number]

    def __len__(self):
        return sys.maxsize // 2

    def __getitem__(self, place):
        """Sample `place` (batch k holds k·B … k·B+B-1): video index, frame and the sample's own seed."""
        step, row = divmod(int(place), self.batch_size)
        epoch, step = divmod(step, self.steps_per_epoch)
        video_index, frame = self.candidates[self.epoch(epoch)[step, row]]
        return int(video_index), int(frame), (self.seed, _SAMPLE, int(place))

    def instead(self, entry, attempt):
        """What may take the place of a sample: one of the same bucket, another one at each attempt from 1."""
        members = self._members[self._buckets[entry[0]]]
        seed = (*entry[2], attempt)
        video_index, frame = self.candidates[np.random.default_rng((*seed, 0)).choice(members)]
        return int(video_index), int(frame), seed


class _Rows:
    """Of every batch of a schedule only the `rows`, a slice: what one of several processes loads."""

    def __init__(self, schedule, rows):
        self._schedule, self._first, self._count = schedule, rows.start, rows.stop - rows.start

    def __len__(self):
        return len(self._schedule) // self._schedule.batch_size * self._count

    def __getitem__(self, place):
        step, row = divmod(int(place), self._count)
        return self._schedule[step * self._schedule.batch_size + self._first + row]


class _Load:
    """Turns an entry of the schedule into a sample, with `skipped`: how many pairs were skipped for it.

    With `skip` another pair takes the place of one that cannot be read, and each reason is said once: batch k
    is then a function of the files, too, but still not of who loads it.
    """

    def __init__(self, loader, schedule, skip):
        self.loader, self.schedule, self.skip = loader, schedule, skip
        self._said = set()

    def __call__(self, entry):
        for attempt in range(TRIES):
            video_index, frame, seed = self.schedule.instead(entry, attempt) if attempt else entry
            try:
                sample = self.loader(video_index, frame, np.random.default_rng(seed))
                return sample | {"skipped": np.int32(attempt)}
            except UserError as error:
                if not self.skip:
                    raise
                self._say(problem := str(error))
        raise UserError(f"{TRIES} pairs in a row cannot be read; the last one: {problem}")

    def _say(self, problem):
        if problem not in self._said:
            self._said.add(problem)
            logging.getLogger(__name__).warning("training pairs are skipped: %s", problem)


def steps_per_epoch(dataset, options, *, batch_size):
    """The number of batches that show every candidate once (see PairSchedule)."""
    return PairSchedule(dataset, options, seed=0, batch_size=batch_size).steps_per_epoch


def training_batches(
    dataset,
    options,
    *,
    seed,
    batch_size,
    rows=None,
    start_step=0,
    workers=0,
    threads=None,
    on_error="stop",
):
    """An endless iterator of batches from step `start_step` on; close it with its `close()` when done.

    A batch is the dict of `PairLoader` with every array stacked to (B, …); all samples share one bucket. B is
    `batch_size`, or only the `rows` of these, a slice, are loaded. `workers` 0 loads in `threads` threads of
    this process (by default one a core, 8 at most), more in that many processes. Raises UserError, also from
    the iterator when a frame cannot be read, unless `on_error` is "skip" (see `_Load`).
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
        processes = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
        batches = batches.mp_prefetch(processes).map(_copy_batch)
    return iter(batches)


def _copy_batch(batch):
    """The batch in memory of its own: Grain's processes hand over shared memory, which must be gone before
    the interpreter ends."""
    return {name: np.array(values) for name, values in batch.items()}


def _mark_flags_parsed():
    """Grain 0.2.18 reads absl flags when it starts processes, which fails outside of `absl.app.run`
    (google/grain#1355)."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
