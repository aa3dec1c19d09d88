"""Shapes, surface patterns and backgrounds of generated videos.

Every function draws only from its argument `rng`, so the seed of a video determines its pixels.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.random import Generator

PATTERNS = ("stripes", "checks", "dots", "gradient", "noise", "plain")


def _regular_points(
    count: int, radii: Sequence[float] | np.ndarray, phase: float = -math.pi / 2
) -> np.ndarray:
    """Points (count, 2) around the origin at evenly spaced angles; `radii` are repeated as needed."""
    angles = phase + 2 * math.pi * np.arange(count) / count
    lengths = np.resize(np.asarray(radii, np.float64), count)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * lengths[:, None]


def _cross_points(arm: float = 0.36, reach: float = 0.95) -> np.ndarray:
    """The outline (12, 2) of a plus sign whose arms are 2 × `arm` wide and `reach` long."""
    a, r = arm, reach
    return np.array(
        [
            (-a, -r),
            (a, -r),
            (a, -a),
            (r, -a),
            (r, a),
            (a, a),
            (a, r),
            (-a, r),
            (-a, a),
            (-r, a),
            (-r, -a),
            (-a, -a),
        ]
    )


# Outlines in the unit disc; round shapes are drawn from their radii.
_POLYGONS = {
    "square": _regular_points(4, [1.0], phase=math.pi / 4),
    "triangle": _regular_points(3, [1.0]),
    "star": _regular_points(10, [1.0, 0.45]),
    "cross": _cross_points(),
}
_DISCS = {"circle": 0.0, "ring": 0.52}  # inner radius of the hole


def shape_alpha(shape: str, side: int) -> np.ndarray:
    """The coverage (side, side) float32 in 0..1 of a shape of `options.SHAPES`."""
    oversample = 2
    size = side * oversample
    canvas = np.zeros((size, size), np.uint8)
    centre, radius = (size - 1) / 2, 0.48 * size
    if shape in _DISCS:
        middle = (round(centre), round(centre))
        cv2.circle(canvas, middle, round(radius), 255, -1, cv2.LINE_AA)
        if _DISCS[shape] > 0:
            cv2.circle(canvas, middle, round(radius * _DISCS[shape]), 0, -1, cv2.LINE_AA)
    else:
        points = np.round(_POLYGONS[shape] * radius + centre).astype(np.int32)
        cv2.fillPoly(canvas, [points], 255, cv2.LINE_AA)
    return cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def smooth_noise(rng: Generator, height: int, width: int, cells: float, octaves: int = 3) -> np.ndarray:
    """Multi-scale noise (height, width) float32 in 0..1.

    `cells` is the grid of the coarsest octave along the shorter side. Each further octave is twice as fine
    and half as strong.
    """
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        step = max(min(height, width) / (cells * 2**octave), 1.0)
        grid = rng.random((math.ceil(height / step) + 1, math.ceil(width / step) + 1), dtype=np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 0.5**octave
    low, high = float(total.min()), float(total.max())
    return (total - low) / max(high - low, 1e-6)


def hsv_colour(hue: float, saturation: float, value: float) -> np.ndarray:
    """RGB float32 (3,) in 0..255 from a hue in turns (any real), and a saturation and value in 0..1."""
    channel = (np.array([5.0, 3.0, 1.0]) + (hue % 1.0) * 6) % 6
    weight = np.clip(np.minimum(channel, 4 - channel), 0, 1)
    return (255 * value * (1 - saturation * weight)).astype(np.float32)


def _pattern_weight(rng: Generator, pattern: str, side: int) -> np.ndarray:
    """The share of the second colour in each pixel: (side, side) float32 in 0..1."""
    v, u = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
    angle = rng.uniform(0, math.pi)
    along, across = u * math.cos(angle) + v * math.sin(angle), v * math.cos(angle) - u * math.sin(angle)
    period = rng.uniform(2.0, 3.5) * math.pi
    if pattern == "stripes":
        return 0.5 + 0.5 * np.tanh(4 * np.sin(period * along))
    if pattern == "checks":
        return 0.5 + 0.5 * np.tanh(6 * np.sin(period * along) * np.sin(period * across))
    if pattern == "dots":
        return 0.5 + 0.5 * np.tanh(4 * (np.cos(period * along) + np.cos(period * across) - 0.7))
    if pattern == "gradient":
        return np.clip(0.5 + 0.6 * along, 0, 1)
    if pattern == "noise":
        return np.clip(1.8 * smooth_noise(rng, side, side, cells=5, octaves=2) - 0.4, 0, 1)
    return np.zeros((side, side), np.float32)


def surface(rng: Generator, pattern: str, hue: float, side: int) -> np.ndarray:
    """An object's skin (side, side, 3) float32 in 0..255: two colours mixed by a pattern of `PATTERNS`.

    `hue` (turns) sets the main colour; the second is another hue or a much lighter or darker tone of it.
    """
    value = rng.uniform(0.6, 1.0)
    first = hsv_colour(hue, rng.uniform(0.55, 1.0), value)
    if rng.random() < 0.5:
        second = hsv_colour(hue + rng.uniform(0.25, 0.75), rng.uniform(0.4, 1.0), rng.uniform(0.4, 1.0))
    else:
        second = hsv_colour(hue, rng.uniform(0.0, 0.4), 0.25 if value > 0.8 else 1.0)
    weight = _pattern_weight(rng, pattern, side)[..., None]
    grain = smooth_noise(rng, side, side, cells=8, octaves=2)[..., None] - 0.5
    return np.clip(first * (1 - weight) + second * weight + 40 * grain, 0, 255).astype(np.float32)


def _draw_distractors(rng: Generator, canvas: np.ndarray, unit: int) -> None:
    """Paint unlabelled clutter into `canvas` (H, W, 3) float32 in place: thin lines and irregular soft blobs.

    Their sizes are fractions of `unit` pixels. None of them has the outline of a labelled shape.
    """
    height, width = canvas.shape[:2]
    for _ in range(rng.integers(5, 12)):
        colour = hsv_colour(rng.random(), rng.uniform(0, 0.9), rng.uniform(0.1, 1.0))
        centre = rng.uniform((0, 0), (width, height))
        alpha: np.ndarray = np.zeros((height, width), np.uint8)
        if rng.random() < 0.5:
            points = centre + np.cumsum(rng.normal(0, 0.22 * unit, (rng.integers(3, 6), 2)), axis=0)
            thickness = max(1, round(unit * rng.uniform(0.01, 0.035)))
            cv2.polylines(alpha, [points.astype(np.int32)], False, 255, thickness, cv2.LINE_AA)
        else:
            radii = rng.uniform(0.02, 0.16, 9) * unit
            points = centre + _regular_points(9, radii) * rng.uniform(0.5, 1.6, 2)
            cv2.fillPoly(alpha, [points.astype(np.int32)], 255, cv2.LINE_AA)
            blur = 2 * round(unit * rng.uniform(0.005, 0.03)) + 1
            alpha = cv2.GaussianBlur(alpha, (blur, blur), 0)
        weight = alpha[..., None] * np.float32(rng.uniform(0.5, 0.95) / 255)
        canvas += (colour - canvas) * weight


def background(rng: Generator, height: int, width: int, unit: int) -> np.ndarray:
    """A cluttered scene (height, width, 3) uint8 without labelled objects.

    The sizes of its clutter are fractions of `unit`, the frame height in pixels.
    """
    rows, columns = np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32)
    angle = rng.uniform(0, 2 * math.pi)
    ramp = 0.5 + 0.35 * (rows[:, None] * math.sin(angle) + columns[None] * math.cos(angle))
    colours = [hsv_colour(rng.random(), rng.uniform(0, 0.7), rng.uniform(0.15, 0.9)) for _ in range(3)]
    canvas = colours[0] + (colours[1] - colours[0]) * ramp[..., None]
    coarse = smooth_noise(rng, height, width, cells=rng.uniform(2, 6), octaves=2)[..., None]
    canvas += (colours[2] - canvas) * coarse * np.float32(rng.uniform(0.4, 0.9))
    fine = smooth_noise(rng, height, width, cells=rng.uniform(10, 40), octaves=3)[..., None] - 0.5
    canvas += fine * np.float32(rng.uniform(20, 90))
    canvas = np.clip(canvas, 0, 255).astype(np.float32)
    _draw_distractors(rng, canvas, unit)
    return np.clip(canvas, 0, 255).astype(np.uint8)
