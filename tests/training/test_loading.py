"""A loader that does not answer: the frame is named, and the wait ends after a time or a signal."""

import dataclasses
import os
import signal
import threading

import pytest

from masktrack_jax.data import vis
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


@pytest.fixture(autouse=True)
def silent(monkeypatch):
    monkeypatch.setattr(loading, "training_batches", Silent)
    monkeypatch.setattr(loading, "ANSWER", 0.3)


def test_the_frame_that_does_not_answer_is_named(config, dataset, tmp_path):
    config.data.timeout = 1
    with Interruption() as interruption, pytest.raises(NoBatch) as caught:
        next(Batches(config, dataset, 3, interruption))
    text = str(caught.value)
    assert text.startswith(
        f"step 4: the loader gives no batch for 1 seconds; {tmp_path}/dead.jpg does not answer"
    )
    assert "the state before this step is saved" in text and "config.data.timeout" in text


def test_a_signal_ends_the_wait_and_the_batches(config, dataset):
    with Interruption() as interruption:
        batches = Batches(config, dataset, 3, interruption)
        os.kill(os.getpid(), signal.SIGTERM)
        assert next(batches, None) is None and interruption.signal == signal.SIGTERM


def test_one_of_several_processes_ends_all_without_saving(config, dataset):
    with Interruption(shared=True) as interruption:
        batches = Batches(config, dataset, 3, interruption)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(UserError, match="the run resumes from its newest checkpoint") as caught:
            next(batches)
    assert not isinstance(caught.value, NoBatch)


def test_a_killed_loader_process_is_one_line(config, dataset, monkeypatch):
    def die(_):
        raise RuntimeError("Worker process was terminated unexpectedly with exit code -9. Search the logs")

    monkeypatch.setattr(Silent, "__next__", die)
    with (
        Interruption() as interruption,
        pytest.raises(NoBatch, match=r"step 1: .*ended with status -9.*workers"),
    ):
        next(Batches(config, dataset, 0, interruption))
