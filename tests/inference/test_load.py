"""Tracks from a checkpoint with the real network: compiled programs, changes of the config, mismatches."""

import functools
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from masktrack_jax.checkpoints import store
from masktrack_jax.checkpoints.metadata import Metadata, fingerprint
from masktrack_jax.inference import load
from masktrack_jax.models.masktrack_rcnn import MaskTrackRCNN, build_model
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.tracking.tracks import TrackOptions

CATEGORIES = [(1, "circle"), (2, "square"), (3, "triangle")]


@pytest.fixture(scope="module")
def checkpoint(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: tuple[MaskTrackRCNN, dict[str, Any]]
) -> Path:
    """A checkpoint for inference of the tiny network, as a folder."""
    from tests.helpers.configs import load_config

    path = tmp_path_factory.mktemp("checkpoint") / "3"
    about = Metadata(load_config("tiny"), CATEGORIES, 3)
    store.write_variables(path, tiny_model[1], about)
    return path


def test_one_program_for_each_bucket(
    tiny_model: tuple[MaskTrackRCNN, dict[str, Any]],
    tiny_config: ConfigDict,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ten videos of two shapes, of many sizes and lengths, compile two programs, and each says so."""
    traced, detect = [], MaskTrackRCNN.detect

    @functools.wraps(detect)
    def counted(model: MaskTrackRCNN, images: jax.Array, *rest: Any) -> Any:
        traced.append(images.shape)
        return detect(model, images, *rest)

    monkeypatch.setattr(MaskTrackRCNN, "detect", counted)
    segmenter = load.build_segmenter(tiny_config, CATEGORIES, tiny_model[1])
    segmenter.resize = replace(segmenter.resize, buckets=[(64, 96), (96, 64)])
    rng = np.random.default_rng(0)
    for video in range(10):
        height, width = (120 + video, 180) if video % 2 else (180, 110 + video)
        frames = rng.integers(0, 256, (1 + video % 4, height, width, 3), np.uint8)
        segmenter.segment(frames, video)
    batch = segmenter.frames_per_call
    assert traced == [(batch, 96, 64, 3), (batch, 64, 96, 3)]
    first, ready, *others = capsys.readouterr().err.splitlines()
    assert first == f"compiling detection for {batch} frames of 96×64 …" and len(others) == 2
    assert re.fullmatch(
        rf"detection for {batch} frames of 96×64: (compiled|from the cache) in [\d.]+ s", ready
    )


def test_a_checkpoint_alone_gives_the_same_tracks(
    checkpoint: Path,
    tiny_model: tuple[MaskTrackRCNN, dict[str, Any]],
    tiny_config: ConfigDict,
    tiny_images: np.ndarray,
) -> None:
    there = load.load_segmenter(checkpoint)
    here = load.build_segmenter(tiny_config, CATEGORIES, tiny_model[1])
    assert there.categories == CATEGORIES
    tracks = there.segment(tiny_images)
    assert tracks and tracks == here.segment(tiny_images)


def test_a_checkpoint_is_known_by_its_files(checkpoint: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    assert fingerprint(copy) == fingerprint(checkpoint)
    file = max((copy / "variables").rglob("*"), key=lambda path: path.stat().st_size)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert fingerprint(copy) != fingerprint(checkpoint)


def test_changes_of_a_checkpoints_config_reach_the_segmenter(
    checkpoint: Path, tiny_images: np.ndarray
) -> None:
    changes = {
        "inference.scale": (80, 60),
        "inference.association.similarity": "cosine",
        "inference.association.new_score": 1.0,
        "inference.tracks.label": "vote",
    }
    changed = load.load_segmenter(checkpoint, changes=changes)
    assert (changed.resize.long_edge, changed.resize.short_edge) == (80, 60)
    assert changed.tracks == TrackOptions(label="vote")
    assert changed.segment(tiny_images) == [], "nothing scores enough to start a track"
    with pytest.raises(UserError, match=r"^config\.inference\.tracks\.label: is '.*'; use one of"):
        load.load_segmenter(checkpoint, changes={"inference.tracks.label": "guess"})


@pytest.mark.parametrize("dtype, tolerance", [("bfloat16", 0.1), ("float64", 1e-4)])
def test_other_widths_find_what_float32_finds(
    dtype: str,
    tolerance: float,
    tiny_model: tuple[MaskTrackRCNN, dict[str, Any]],
    tiny_config: ConfigDict,
    tiny_images: np.ndarray,
) -> None:
    """The same float32 parameters give float32 outputs, and scores equal to the narrower precision."""
    found = {}
    for width in ("float32", dtype):
        tiny_config.model.dtype = width
        model = build_model(tiny_config, len(CATEGORIES))
        with jax.enable_x64(width == "float64"):
            predict = load.make_predict(model, tiny_model[1])
            found[width] = jax.device_get(predict(tiny_images, np.array([[64, 96]] * 2)))
    assert all(of["scores"].dtype == np.float32 for of in found.values()) and np.any(found[dtype]["valid"])
    assert np.any(found[dtype]["scores"] != found["float32"]["scores"])
    np.testing.assert_allclose(found[dtype]["scores"], found["float32"]["scores"], atol=tolerance)


def test_other_architectures_are_named(checkpoint: Path, tiny_config: ConfigDict) -> None:
    with pytest.raises(UserError, match="another architecture or number of classes: params/box_head"):
        store.load_variables(checkpoint, build_model(tiny_config, 4))
    tiny_config.model.fpn.channels = 24
    with pytest.raises(UserError, match="another architecture"):
        store.load_variables(checkpoint, build_model(tiny_config, 3))


def test_a_truncated_frame_names_its_file(checkpoint: Path, tmp_path: Path) -> None:
    from masktrack_jax.inference.track_video import track_video

    frames = tmp_path / "frames"
    frames.mkdir()
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(frames / "0.jpg")
    whole = (frames / "0.jpg").read_bytes()
    (frames / "1.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"1\.jpg"):
        track_video(load.load_segmenter(checkpoint), frames, tmp_path / "out")
    assert not (tmp_path / "out").exists()
