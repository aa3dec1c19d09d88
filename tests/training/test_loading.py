"""Batches wait on the devices, in order, two at a time. A loader that does not answer is named in time."""

import dataclasses
import os
import signal
import threading
import time

import jax
import numpy as np
import pytest

from masktrack_jax.data import vis
from masktrack_jax.data.batches import Frames, PairBatch, Provenance
from masktrack_jax.data.splits import training_split
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.signals import Interruption
from masktrack_jax.training import loading
from masktrack_jax.training.loading import Batches, NoBatch


class Silent:
    """A loader that never gives a batch."""

    def __init__(self, *_, **options):
        self.asked, self.workers = threading.Event(), options["workers"]

    def __next__(self):
        self.asked.set()
        threading.Event().wait(60)

    def close(self):
        pass


@pytest.fixture
def dataset(config, tmp_path, monkeypatch):
    """The tiny data; the first frame of a video never answers, as on a dead disk."""
    dataset = training_split(config)
    monkeypatch.setattr(vis, "read_image", lambda path, *_: threading.Event().wait(60))
    names = [(str(tmp_path / "dead.jpg"), *video.file_names[1:]) for video in dataset.videos]
    videos = tuple(dataclasses.replace(v, file_names=n) for v, n in zip(dataset.videos, names))
    return dataclasses.replace(dataset, videos=videos)


@pytest.fixture
def silent(monkeypatch):
    monkeypatch.setattr(loading, "training_batches", Silent)
    monkeypatch.setattr(loading, "ANSWER", 0.3)


@pytest.mark.usefixtures("silent")
def test_the_frame_that_does_not_answer_is_named(config, dataset, tmp_path):
    config.data.timeout = 1
    with Interruption() as interruption, pytest.raises(NoBatch) as caught:
        next(Batches(config, dataset, 3, interruption))
    text = str(caught.value)
    assert text.startswith(
        f"step 4: the loader gives no batch for 1 seconds; {tmp_path}/dead.jpg does not answer"
    )
    assert "the state before this step is saved" in text and "config.data.timeout" in text


@pytest.mark.usefixtures("silent")
def test_a_signal_ends_the_wait_and_the_batches(config, dataset):
    with Interruption() as interruption:
        batches = Batches(config, dataset, 3, interruption)
        os.kill(os.getpid(), signal.SIGTERM)
        assert next(batches, None) is None and interruption.signal == signal.SIGTERM


@pytest.mark.usefixtures("silent")
def test_one_of_several_processes_ends_all_without_saving(config, dataset):
    with Interruption(shared=True) as interruption:
        batches = Batches(config, dataset, 3, interruption)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(UserError, match="the run resumes from its newest checkpoint") as caught:
            next(batches)
    assert not isinstance(caught.value, NoBatch)


def test_a_killed_loader_process_is_one_line(config, dataset, silent, monkeypatch):
    def die(_):
        raise RuntimeError("Worker process was terminated unexpectedly with exit code -9. Search the logs")

    monkeypatch.setattr(Silent, "__next__", die)
    with (
        Interruption() as interruption,
        pytest.raises(NoBatch, match=r"step 1: .*ended with status -9.*workers"),
    ):
        next(Batches(config, dataset, 0, interruption))


class Counting:
    """A loader of eight small pairs a batch, which end with an error; `taken` batches so far."""

    def __init__(self, *_, **options):
        self.taken, self.closed = options["start_step"], False

    def __next__(self):
        if self.taken == 5:
            raise UserError("frame.jpg: broken")
        self.taken += 1
        rows = np.arange(8)
        image = np.full((8, 4, 6, 3), 10 * self.taken, np.uint8) + rows[:, None, None, None].astype(np.uint8)
        frames = Frames(image, np.zeros((8, 2)), np.zeros((8, 1, 4)), np.ones((8, 1), bool))
        return PairBatch(frames, frames, Provenance(rows, rows, rows, 0 * rows))

    def close(self):
        self.closed = True


def test_batches_wait_on_the_devices_two_at_a_time(config, monkeypatch):
    """In their order, each device's rows on that device; an error comes after the batches before it."""
    loaders = []
    monkeypatch.setattr(
        loading, "training_batches", lambda *a, **k: loaders.append(Counting(*a, **k)) or loaders[0]
    )
    config.train.batch_size = 8
    with Interruption() as interruption:
        batches = Batches(config, training_split(config), 1, interruption)
        for step in range(2, 6):
            batch = next(batches)
            time.sleep(0.05)
            assert loaders[0].taken <= min(step + loading.AHEAD, 5)
            assert batch.key.image.shape == (4, 2, 4, 6, 3) and batch.key.image.dtype == np.uint8
            for part, device in zip(batch.key.image.addressable_shards, jax.local_devices(), strict=True):
                assert part.device == device
                np.testing.assert_array_equal(
                    part.data[0, :, 0, 0, 0], 10 * step + 2 * device.id + np.arange(2)
                )
            np.testing.assert_array_equal(batch.provenance.key_frame, np.arange(8))
        assert loaders[0].taken == 5, "two batches were loaded ahead of the third step"
        with pytest.raises(UserError, match=r"frame\.jpg: broken"):
            next(batches)
        batches.close()
    assert loaders[0].closed
