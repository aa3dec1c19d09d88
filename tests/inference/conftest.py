"""Inputs for the segmenters of tests/helpers/moving_objects.py, which read a frame's number from a pixel."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from masktrack_jax.inference import progress
from masktrack_jax.inference.track_video import track_video
from masktrack_jax.video.files import VideoWriter
from tests.helpers.moving_objects import moving_objects, segmenter_of
from tests.helpers.track_known import FRAMES


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A video whose frames are all the detector's frame 0."""
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, 10, 90, 150) as writer:
        for _ in range(6):
            writer.write(np.zeros((90, 150, 3), np.uint8))
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of frames, each with its number in every pixel."""
    folder = tmp_path_factory.mktemp("images")
    for index in range(FRAMES):
        Image.fromarray(np.full((90, 150, 3), index, np.uint8)).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def interrupted(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output folder of a run that was interrupted after 4 frames."""
    monkeypatch.setattr(progress, "SAVE_FRAMES", 4)
    segmenter = segmenter_of(moving_objects(8))
    with pytest.raises(IndexError):  # the detector knows no more
        track_video(segmenter, images, tmp_path / "out")
    return tmp_path / "out"
