"""Batches: the same for any number of processes, every frame once per epoch, one bucket per batch."""

import collections
import dataclasses
import sys
from operator import itemgetter
from typing import NamedTuple

import jax
import numpy as np
import pytest
from PIL import Image

from masktrack_jax.data import pipeline
from masktrack_jax.data.batches import Frames, FrameTargets, PairBatch, Provenance
from masktrack_jax.data.generate.options import GeneratorOptions
from masktrack_jax.data.generate.write import generate
from masktrack_jax.data.options import PairOptions
from masktrack_jax.data.pairs import candidates
from masktrack_jax.data.pipeline import PairSchedule, steps_per_epoch, training_batches
from masktrack_jax.data.vis import read_vis
from masktrack_jax.runtime.errors import UserError
from tests.helpers.training import places

OPTIONS = PairOptions(scales=[(64, 64)], buckets=[(64, 96), (96, 64), (64, 64)], max_objects=4)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Three landscape videos and one portrait video, 7 frames each."""
    folder = tmp_path_factory.mktemp("pipeline")
    common = {"seed": 2, "frames": 7, "leave": 0.0}
    wide = read_vis(generate(folder / "wide", GeneratorOptions(videos=3, height=40, width=64, **common)))
    tall = read_vis(generate(folder / "tall", GeneratorOptions(videos=1, height=64, width=40, **common)))
    videos, objects = [], {}
    for source in (wide, tall):
        for video in source.videos:
            names = tuple(str(source.frames_root / name) for name in video.file_names)
            objects[len(videos)] = source.objects_of(video)
            videos.append(dataclasses.replace(video, id=len(videos), file_names=names))
    return dataclasses.replace(wide, videos=tuple(videos), objects=objects)


@pytest.fixture(scope="module")
def two_buckets():
    return dataclasses.replace(OPTIONS, scales=[(96, 60)], buckets=[(64, 96), (96, 64)])


def _take(iterator, count):
    try:
        return [next(iterator) for _ in range(count)]
    finally:
        iterator.close()


def _same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right))
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


def test_batches_do_not_depend_on_workers_or_start(dataset, two_buckets, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pytest", "--unknown-to-absl"])
    wanted = _take(training_batches(dataset, two_buckets, seed=1, batch_size=3), 9)
    for workers in (1, 2):
        batches = _take(training_batches(dataset, two_buckets, seed=1, batch_size=3, workers=workers), 9)
        assert all(map(_same, wanted, batches))
    for threads in (1, 5):
        batches = _take(training_batches(dataset, two_buckets, seed=1, batch_size=3, threads=threads), 9)
        assert all(map(_same, wanted, batches))
    resumed = _take(training_batches(dataset, two_buckets, seed=1, batch_size=3, start_step=7), 2)
    assert all(map(_same, wanted[7:], resumed))
    other = _take(training_batches(dataset, two_buckets, seed=2, batch_size=3), 9)
    assert not all(map(_same, wanted, other))


def test_shares_of_a_batch_are_its_rows(dataset, two_buckets, monkeypatch):
    """Of 5 rows one share has 3 and the other 2, and no other pairs are loaded."""
    common = {"seed": 1, "batch_size": 5, "start_step": 2}
    loaded, load = collections.defaultdict(set), pipeline._Load.__call__

    def noted(self, entry):
        if self.schedule.batch_size == 5:  # without what an earlier test still prefetches
            loaded[self].add(entry.seed[-1] % 5)  # its place in the batch
        return load(self, entry)

    monkeypatch.setattr(pipeline._Load, "__call__", noted)
    parts = [slice(0, 3), slice(3, 5)]
    shares = [_take(training_batches(dataset, two_buckets, rows=rows, **common), 4) for rows in parts]
    assert list(loaded.values()) == [{0, 1, 2}, {3, 4}]
    wanted = _take(training_batches(dataset, two_buckets, **common), 4)
    for rows, share in zip(parts, shares):
        for batch, whole in zip(share, wanted):
            assert _same(batch, jax.tree.map(itemgetter(rows), whole))


class Field(NamedTuple):
    """What an array of a batch is, without the leading axis."""

    shape: tuple
    dtype: type


def test_batch_contract(dataset, two_buckets):
    (batch,) = _take(training_batches(dataset, two_buckets, seed=0, batch_size=3), 1)
    height, width = batch.key.image.shape[1:3]
    assert (height, width) in two_buckets.buckets
    frames = Frames(
        image=Field((height, width, 3), np.uint8),
        image_size=Field((2,), np.int32),
        boxes=Field((4, 4), np.float32),
        valid=Field((4,), np.bool_),
    )
    targets = FrameTargets(
        labels=Field((4,), np.int32),
        masks=Field((4, height, width // 8), np.uint8),
        matches=Field((4,), np.int32),
    )
    provenance = Provenance(*(Field((), np.int32) for _ in Provenance._fields))
    expected = PairBatch(frames._replace(targets=targets), frames, provenance)
    assert jax.tree.map(lambda value: Field(value.shape[1:], value.dtype.type), batch) == expected
    assert {len(value) for value in jax.tree.leaves(batch)} == {3}


def test_an_epoch_shows_every_frame_once_and_each_epoch_anew(dataset):
    options = dataclasses.replace(OPTIONS, buckets=[(64, 64)])
    schedule = PairSchedule(dataset, options, seed=0, batch_size=5)
    rows = len(candidates(dataset))
    assert rows == 28 and schedule.steps_per_epoch == 5
    assert steps_per_epoch(dataset, options, batch_size=5) == 5
    epochs = [[schedule[place] for place in range(25 * epoch, 25 * (epoch + 1))] for epoch in range(4)]
    shown = [{entry[:2] for entry in epoch} for epoch in epochs]
    assert all(len(frames) == 25 for frames in shown)
    assert set().union(*shown) == {tuple(row) for row in candidates(dataset).tolist()}
    assert len({tuple(entry[:2] for entry in epoch) for epoch in epochs}) == 4
    assert len({entry[2] for epoch in epochs for entry in epoch}) == 100  # a seed of its own for every sample


def test_draws_differ_between_epochs(dataset):
    options = dataclasses.replace(OPTIONS, buckets=[(64, 64)])
    batches = _take(training_batches(dataset, options, seed=0, batch_size=7), 4 * 12)
    drawn = collections.defaultdict(set)
    for batch in batches:
        for video, key, reference in places(batch):
            drawn[video, key].add(reference)
    assert all(len(references) > 1 for references in drawn.values())


def test_a_batch_holds_one_bucket_and_batches_come_in_proportion(dataset, two_buckets):
    schedule = PairSchedule(dataset, two_buckets, seed=0, batch_size=3)
    assert schedule.steps_per_epoch == 21 // 3 + 7 // 3
    orders = set()
    for epoch in range(3):
        portrait = schedule.candidates[schedule.epoch(epoch)][..., 0] == 3
        assert (portrait.all(axis=1) | ~portrait.any(axis=1)).all()
        assert portrait.all(axis=1).sum() == 2
        orders.add(tuple(portrait.all(axis=1)))
    assert len(orders) > 1
    for batch in _take(training_batches(dataset, two_buckets, seed=0, batch_size=3), 9):
        shape = (64, 96) if (batch.provenance.video_index < 3).all() else (96, 64)
        assert batch.key.image.shape[1:3] == shape


def test_a_bucket_smaller_than_a_batch_repeats(dataset, two_buckets):
    schedule = PairSchedule(dataset, two_buckets, seed=0, batch_size=16)
    assert schedule.steps_per_epoch == 2
    portrait = [row for row in schedule.candidates[schedule.epoch(0)] if (row[:, 0] == 3).all()]
    assert len(portrait) == 1
    counts = collections.Counter(portrait[0][:, 1].tolist())
    assert set(counts) == set(range(7)) and set(counts.values()) == {2, 3}


def test_options_that_fit_no_bucket_or_batch_are_one_line(dataset):
    with pytest.raises(UserError, match=r"data\.buckets"):
        training_batches(dataset, dataclasses.replace(OPTIONS, buckets=[(32, 32)]), seed=0, batch_size=2)
    with pytest.raises(UserError, match="batch size 0"):
        training_batches(dataset, OPTIONS, seed=0, batch_size=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_missing_frame_is_a_user_error(dataset, workers, tmp_path):
    videos = tuple(
        dataclasses.replace(video, file_names=(str(tmp_path / "gone.jpg"),) * video.length)
        for video in dataset.videos
    )
    iterator = training_batches(
        dataclasses.replace(dataset, videos=videos), OPTIONS, seed=0, batch_size=2, workers=workers
    )
    with pytest.raises(UserError, match=r"gone\.jpg: no such image") as caught:
        _take(iterator, 1)
    assert "\n" not in str(caught.value)


@pytest.fixture
def with_holes(dataset, tmp_path):
    """The first frame of three videos is missing, is cut off, or is of another size; the last is whole."""
    path = dataset.frame_path(dataset.videos[0], 0)
    (tmp_path / "cut.jpg").write_bytes(path.read_bytes()[:300])
    Image.new("RGB", (8, 8)).save(tmp_path / "small.jpg")
    videos = [
        dataclasses.replace(video, file_names=(str(tmp_path / name), *video.file_names[1:]))
        for video, name in zip(dataset.videos, ("gone.jpg", "cut.jpg", "small.jpg"))
    ]
    return dataclasses.replace(dataset, videos=(*videos, dataset.videos[3]))


def test_bad_frames_are_skipped_and_counted(with_holes, dataset, two_buckets, caplog, monkeypatch):
    """Readable pairs are unchanged; another pair of the same bucket replaces an unreadable one."""
    monkeypatch.setattr(sys, "argv", ["pytest", "--unknown-to-absl"])
    common = {"seed": 1, "batch_size": 3, "on_error": "skip"}
    batches = _take(training_batches(with_holes, two_buckets, **common), 27)
    whole = _take(training_batches(dataset, two_buckets, seed=1, batch_size=3), 27)
    bad = [(0, 0), (1, 0), (2, 0)]
    skipped = 0
    for batch, wanted in zip(batches, whole):
        for row in range(3):
            video, key, reference = places(wanted)[row]
            attempts = batch.provenance.skipped[row]
            assert (attempts > 0) == any(frame in bad for frame in ((video, key), (video, reference)))
            if attempts == 0:
                assert all(
                    np.array_equal(ours[row], theirs[row])
                    for ours, theirs in zip(jax.tree.leaves(batch), jax.tree.leaves(wanted))
                )
            video, key, reference = places(batch)[row]
            assert not any(frame in bad for frame in ((video, key), (video, reference)))
            skipped += attempts
    assert skipped > 8
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3 and all("training pairs are skipped" in line for line in lines)  # each file once
    assert {name for name in ("gone", "cut", "small") for line in lines if f"{name}.jpg: " in line} == {
        "gone",
        "cut",
        "small",
    }
    again = _take(training_batches(with_holes, two_buckets, workers=2, start_step=20, **common), 2)
    assert all(map(_same, batches[20:], again))


def test_a_set_without_readable_frames_is_not_skipped_forever(dataset, tmp_path):
    videos = tuple(
        dataclasses.replace(video, file_names=(str(tmp_path / "gone.jpg"),) * video.length)
        for video in dataset.videos
    )
    broken = dataclasses.replace(dataset, videos=videos)
    with pytest.raises(UserError, match=r"10 pairs in a row cannot be read; the last one: .*gone\.jpg"):
        _take(training_batches(broken, OPTIONS, seed=0, batch_size=2, on_error="skip"), 1)
