"""One generated video: objects that move, rotate, grow and occlude each other over a cluttered background.

`sample_scene` draws all random values of a video; `render.render_frame` renders its frames. Objects of one
category differ only in colour and pattern.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from masktrack_jax.data.generate.options import GeneratorOptions
from masktrack_jax.data.generate.textures import PATTERNS, background, shape_alpha, surface


@dataclasses.dataclass(frozen=True)
class Sprite:
    """One object of a scene. Per-frame arrays have length T. Its depth is its index in the scene's list."""

    label: int  # index in the options' categories
    skin: np.ndarray  # (S, S, 3) float32, 0..255
    alpha: np.ndarray  # (S, S) float32, 0..1
    centres: np.ndarray  # (T, 2) x, y in pixels
    angles: np.ndarray  # (T,) radians
    diameters: np.ndarray  # (T,) pixels
    aspect: float  # width / height before rotation

    def area(self, frame: int) -> float:
        """The number of pixels of the object in a frame if nothing hid it."""
        return float(self.alpha.sum()) * (self.diameters[frame] / self.alpha.shape[0]) ** 2


class Pillar(NamedTuple):
    """A wall in the foreground, over the full height."""

    left: int  # its first column
    colour: np.ndarray  # (H, w, 3) float32


@dataclasses.dataclass(frozen=True)
class Scene:
    """All random values of one video; sprites are ordered from the farthest to the nearest."""

    height: int
    width: int
    backdrop: np.ndarray  # (H', W', 3) uint8, larger than the frame
    offsets: np.ndarray  # (T, 2) x, y of the frame's corner in the backdrop, a camera drift
    gains: np.ndarray  # (T,) brightness
    noise: np.ndarray  # (H', W', 3) int16, cropped at a new place for each frame
    noise_offsets: np.ndarray  # (T, 2) int
    sprites: tuple[Sprite, ...]
    pillars: tuple[Pillar, ...]  # in front of every sprite


def _wave(
    rng: Generator, times: np.ndarray, low: float, high: float, periods: tuple[float, float]
) -> np.ndarray:
    """A smooth periodic path (T,) between `low` and `high`; its period is drawn from a range in frames."""
    phase, period = rng.uniform(0, 2 * math.pi), rng.uniform(*periods)
    return low + (high - low) * (0.5 + 0.5 * np.sin(2 * math.pi * times / period + phase))


def _bounce(
    rng: Generator, times: np.ndarray, low: float, high: float, speeds: tuple[float, float]
) -> np.ndarray:
    """A path (T,) that bounces off both ends; its speed is drawn from a range in pixels per frame."""
    span = max(high - low, 1e-3)
    travelled = (rng.uniform(0, 2 * span) + rng.uniform(*speeds) * times) % (2 * span)
    return low + np.where(travelled < span, travelled, 2 * span - travelled)


def _away(rng: Generator, times: np.ndarray) -> np.ndarray:
    """The displacement (T,) in 0..1 of an object that leaves the frame once and returns; 0 at both ends."""
    frames = len(times)
    ramp = max(frames * 0.15, 1.0)
    hold = rng.uniform(1.0, max(frames * 0.25, 1.5))
    middle = rng.uniform(0.35, 0.65) * (frames - 1)
    x = np.clip((ramp + hold / 2 - np.abs(times - middle)) / ramp, 0, 1)
    return x * x * (3 - 2 * x)


def _entering(rng: Generator, times: np.ndarray) -> np.ndarray:
    """The displacement (T,) in 0..1 of an object that enters the frame late; falls from 1 to 0."""
    frames = len(times)
    ramp = max(frames * 0.15, 1.0)
    x = np.clip(1 - (times - rng.uniform(0.1, 0.5) * frames) / ramp, 0, 1)
    return x * x * (3 - 2 * x)


def _centres(rng: Generator, options: GeneratorOptions, diameter: float) -> np.ndarray:
    """An object's path (T, 2), x, y in pixels. `diameter` is its largest diameter."""
    times = np.arange(options.frames, dtype=np.float64)
    margin = 0.35 * diameter  # objects may extend beyond the border a little
    extents = (options.width, options.height)
    if rng.random() < 0.5:
        speeds = (0.008 * options.height * options.speed, 0.05 * options.height * options.speed)
        path = [_bounce(rng, times, margin, extent - margin, speeds) for extent in extents]
    else:
        periods = (24 / options.speed, 80 / options.speed)
        path = [_wave(rng, times, margin, extent - margin, periods) for extent in extents]
    leaves, enters = rng.random() < options.leave, options.enter and rng.random() < options.enter
    if (leaves or enters) and options.frames >= 8:
        axis, gone = int(rng.random() < 0.3), (_entering if enters else _away)(rng, times)
        at = path[axis][np.argmax(gone)]
        target = -0.75 * diameter if at < extents[axis] / 2 else extents[axis] + 0.75 * diameter
        path[axis] = path[axis] * (1 - gone) + target * gone
    return np.stack(path, axis=1)


def _labels(rng: Generator, options: GeneratorOptions, count: int) -> list[int]:
    """The category index of `count` objects; at least two share one with probability `same_category`."""
    kinds = len(options.categories)
    order = rng.permutation(kinds)
    if count < 2 or rng.random() >= options.same_category:
        return [int(order[i % kinds]) for i in range(count)]
    shared = int(rng.integers(2, count + 1))
    others = [int(order[1 + i % (kinds - 1)]) if kinds > 1 else int(order[0]) for i in range(count - shared)]
    return [int(order[0])] * shared + others


def _sprite(rng: Generator, options: GeneratorOptions, label: int, hue: float, pattern: str) -> Sprite:
    """An object of a category index with a random path, rotation and change of size."""
    times = np.arange(options.frames, dtype=np.float64)
    diameter = rng.uniform(options.min_diameter, options.max_diameter) * options.height
    swing = 1 + rng.uniform(0, 0.2) * np.sin(2 * math.pi * times / rng.uniform(15, 50) + rng.uniform(0, 6.28))
    diameters = np.clip(
        diameter * swing, options.min_diameter * options.height, options.max_diameter * options.height
    )
    side = max(2 * math.ceil(diameters.max()), 16)
    return Sprite(
        label=label,
        skin=surface(rng, pattern, hue, side),
        alpha=shape_alpha(options.categories[label], side),
        centres=_centres(rng, options, float(diameters.max())),
        angles=rng.uniform(0, 2 * math.pi) + rng.uniform(-0.15, 0.15) * times,
        diameters=diameters,
        aspect=float(np.exp(rng.uniform(-0.15, 0.15))),
    )


def _pillars(options: GeneratorOptions, index: int) -> tuple[Pillar, ...]:
    """The walls of video `index`."""
    # Walls have their own generator, so that they do not change the rest of the video.
    rng = np.random.default_rng([options.seed, index, 1])
    walls = []
    for _ in range(options.pillars):
        width = round(rng.uniform(0.6, 1.1) * options.max_diameter * options.height)
        width = min(width, options.width // 2)
        left = int(rng.uniform(0.1, 0.9) * (options.width - width))
        colour = background(rng, options.height, width, options.height).astype(np.float32)
        walls.append(Pillar(left, colour))
    return tuple(walls)


def sample_scene(options: GeneratorOptions, index: int) -> Scene:
    """Draw the scene of video `index`."""
    rng = np.random.default_rng([options.seed, index])
    times = np.arange(options.frames, dtype=np.float64)
    count = int(rng.integers(options.min_objects, options.max_objects + 1))
    labels = _labels(rng, options, count)
    # Evenly spaced hues and patterns in a random order distinguish the objects of one category.
    hues = rng.random() + (np.arange(count) + rng.uniform(-0.25, 0.25, count)) / count
    patterns = [PATTERNS[i] for i in rng.permutation(len(PATTERNS))]
    sprites = [
        _sprite(rng, options, label, hue, patterns[i % len(patterns)])
        for i, (label, hue) in enumerate(zip(labels, hues))
    ]
    depth = rng.permutation(count)

    room = max(options.height // 6, 4)  # largest drift of the camera in pixels
    height, width = options.height + room, options.width + room
    backdrop = background(rng, height, width, options.height)
    drift = [_wave(rng, times, 0, rng.uniform(0, room), (40, 160)) for _ in range(2)]
    return Scene(
        height=options.height,
        width=options.width,
        backdrop=backdrop,
        offsets=np.stack(drift, axis=1),
        gains=1
        + rng.uniform(0, 0.1) * np.sin(2 * math.pi * times / rng.uniform(20, 80) + rng.uniform(0, 6.28)),
        noise=(rng.standard_normal((height, width, 3), dtype=np.float32) * rng.uniform(1, 5)).astype(
            np.int16
        ),
        noise_offsets=rng.integers(0, room + 1, (options.frames, 2)),
        sprites=tuple(sprites[i] for i in depth),
        pillars=_pillars(options, index),
    )
