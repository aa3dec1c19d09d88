"""Randomly changed videos and pictures of pages: frames, or one line that names the file, in bounded time."""

import io
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from masktrack_jax.video.decode import MAX_PIXELS
from masktrack_jax.video.files import frame_rate, open_video
from tests.helpers.mutations import cut_or_flipped, refused_or
from tests.helpers.videos import SHIFTED, encode

VIDEOS = {
    "mp4": ("libx264", "yuv420p"),
    "mov": ("mjpeg", "yuvj420p"),
    "mkv": ("ffv1", "yuv420p"),
    "avi": ("mpeg4", "yuv420p"),
    "ts": ("libx264", "yuv420p"),
    "gif": ("gif", "rgb8"),
    "apng": ("apng", "rgb24"),
}
PICTURES = ("png", "jpeg", "tiff", "webp")
SECONDS = 10  # for a file of some kilobytes, on a busy machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def contents(folder):
    """Valid files by suffix."""
    files = {}
    for suffix, (codec, pixels) in VIDEOS.items():
        encode(folder / f"clip.{suffix}", SHIFTED[:3], codec, pixels)
        files[suffix] = (folder / f"clip.{suffix}").read_bytes()
    for form in PICTURES:
        stream, pages = io.BytesIO(), [Image.fromarray(frame) for frame in SHIFTED[:3]]
        more = {} if form == "jpeg" else {"save_all": True, "append_images": pages[1:]}
        pages[0].save(stream, form, **more)
        files[form] = stream.getvalue()
    return files


@given(data=st.data(), suffix=st.sampled_from([*VIDEOS, *PICTURES]))
def test_videos(folder, contents, data, suffix):
    path = folder / f"changed.{suffix}"
    path.write_bytes(data.draw(cut_or_flipped(contents[suffix])))
    begun = time.monotonic()
    video = refused_or(open_video, path)
    frames = refused_or(lambda _: list(video.frames()), path) if video else None
    assert time.monotonic() - begun < SECONDS
    for frame in frames or ():
        assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3
        assert 0 < frame.shape[0] * frame.shape[1] <= MAX_PIXELS
    if video:
        assert frame_rate(video.fps) > 0 and video.fingerprint()
