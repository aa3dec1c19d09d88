"""Frames of plain quadrants, and video files that hold them."""

from fractions import Fraction

import av
import numpy as np

from masktrack_jax.video.files import VideoWriter

QUADRANTS = np.array([[[200, 30, 30], [30, 200, 30]], [[30, 30, 200], [220, 220, 220]]], np.uint8)


def quadrants(height, width, shift=0):
    """A frame of four quadrants of one colour each, moved down by `shift` rows."""
    rows = (np.arange(height) + shift) % height >= height // 2
    columns = np.arange(width) >= width // 2
    return QUADRANTS[rows.astype(int)[:, None], columns.astype(int)[None]]


def write_video(path, count=5, height=48, width=64, fps=12.5):
    """Write frames of moving quadrants with a `VideoWriter`."""
    with VideoWriter(path, fps, height, width) as writer:
        for index in range(count):
            writer.write(quadrants(height, width, 4 * index))


def close_in_colour(frame, expected):
    """Whether most pixels are similar; not all, because chroma subsampling blurs edges."""
    difference = np.abs(frame.astype(int) - expected).max(axis=2)
    return (difference < 14).mean() > 0.85


def encode(path, frames, codec, pixels="yuv420p", times=None, form=None, options=None):
    """Write frames with a codec of FFmpeg; `times` in milliseconds, by default 10 frames per second."""
    with av.open(str(path), "w", format=form, options=options or {}) as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pixels)
            picture.pts, picture.time_base = (times or range(0, 10**6, 100))[index], Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


SHIFTED = [quadrants(48, 64, 4 * index) for index in range(6)]
