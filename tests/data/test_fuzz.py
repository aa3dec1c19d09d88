"""Randomly changed annotations and images: each is read, or rejected with one line that names it."""

import io
import json

import numpy as np
import pytest
from hypothesis import example, given, target
from hypothesis import strategies as st
from PIL import Image

from masktrack_jax.data.images import read_image
from masktrack_jax.data.json_files import read_json
from masktrack_jax.data.lint.dataset import lint
from masktrack_jax.data.vis import read_vis
from masktrack_jax.masks.segmentations import decode_segmentation
from masktrack_jax.runtime.errors import UserError
from tests.helpers.annotations import annotations, cocovid, with_polygons
from tests.helpers.mutations import changed, cut_or_flipped, refused_or


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


ANNOTATIONS = [annotations(), with_polygons(), cocovid(annotations())]


@given(st.sampled_from(ANNOTATIONS).flatmap(changed))
def test_annotations(folder, content):
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    dataset = refused_or(read_vis, path)
    if dataset is None:
        return
    target(float(len(dataset.videos)))
    for video in dataset.videos:
        assert video.height * video.width <= 2**28
        for frame in range(video.length):
            inside = dataset.frame_path(video, frame).resolve()
            assert inside.is_relative_to(dataset.frames_root.resolve())
            with pytest.raises(UserError, match="no such image"):
                dataset.read_frame(video, frame)
        for found in dataset.objects_of(video):
            for segmentation, box in zip(found.segmentations, found.boxes, strict=True):
                assert (segmentation is None) == (box is None)
                if segmentation is not None and video.height * video.width < 10**6:
                    mask = decode_segmentation(segmentation, video.height, video.width)
                    assert mask.shape == (video.height, video.width)


@given(st.sampled_from(ANNOTATIONS).flatmap(changed))
def test_the_linter(folder, content):
    path = folder / "linted.json"
    path.write_text(json.dumps(content))
    refused_or(lint, path)


@given(cut_or_flipped(json.dumps(annotations()).encode()))
@example(b"[" * 100_000)
@example(b'{"videos": ' + b"1" * 10_000 + b"}")
def test_json_text(folder, content):
    path = folder / "text.json"
    path.write_bytes(content)
    for read in (read_vis, read_json):
        refused_or(read, path)


def picture(suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 16, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, {"jpg": "jpeg"}.get(suffix, suffix))
    return stream.getvalue()


@given(st.sampled_from(["jpg", "png", "bmp", "webp"]).map(picture).flatmap(cut_or_flipped))
def test_images(folder, content):
    path = folder / "frame"
    path.write_bytes(content)
    image = refused_or(read_image, path)
    assert image is None or (image.dtype == np.uint8 and image.shape[2:] == (3,))
