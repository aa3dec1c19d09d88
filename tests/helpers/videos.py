"""Frames of plain quadrants, and video files that hold them."""

import struct
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


def encode(path, frames, codec, pixels="yuv420p", times=None, form=None, options=None, metadata=None):
    """Write frames with a codec of FFmpeg; `times` in milliseconds, by default 10 frames per second."""
    with av.open(str(path), "w", format=form, options=options or {}) as container:
        container.metadata.update(metadata or {})
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


def write_cover(path, moving, attached, sound=None):
    """Write a file whose first video stream is a single picture, like the cover of a song.

    moving: followed by a stream of `SHIFTED`. attached: the picture is marked as attached. sound: a codec.
    """
    picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 255, np.uint8), format="rgb24")
    with av.open(str(path), "w") as container:
        streams = [(container.add_stream("mjpeg", rate=1), "yuvj420p", [picture])]
        if attached:
            streams[0][0].disposition = av.stream.Disposition.attached_pic
        if moving:
            frames = [av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in SHIFTED]
            streams.append((container.add_stream("libx264", rate=10), "yuv420p", frames))
        heard = container.add_stream(sound, rate=44100) if sound else None
        for stream, pixels, _ in streams:
            stream.height, stream.width, stream.pix_fmt = 48, 64, pixels
        for stream, _, frames in streams:
            for time, frame in enumerate(frames):
                frame.pts, frame.time_base = time, 1 / stream.codec_context.rate
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        if heard:
            silence = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
            silence.sample_rate, silence.pts = 44100, 0
            container.mux(heard.encode(silence))
            container.mux(heard.encode(None))


def set_display_matrix(path, matrix):
    """Overwrite the 2×2 part of the matrix in the track header of an mp4."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44  # behind version and flags, times and id, reserved, layer to volume
    a, b, c, d = (round(65536 * value) for value in matrix)
    assert struct.unpack(">9i", data[at : at + 36]) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
