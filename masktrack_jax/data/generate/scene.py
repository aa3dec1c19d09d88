"""One generated video: objects that move, turn, grow and hide each other over a cluttered background.

`sample_scene` draws everything random about a video once; `render_frame` then paints one frame of it together
with the map of which object owns each pixel. Objects of one category differ by colour and pattern only.
"""

import dataclasses
import math

import cv2
import numpy as np

from masktrack_jax.data.generate.textures import PATTERNS, background, shape_alpha, surface


@dataclasses.dataclass(frozen=True)
class Sprite:
    """One object of a scene. Per-frame arrays have length T; depth is its place in the scene's list."""

    label: int  # index in the options' categories
    skin: np.ndarray  # (S, S, 3) float32, 0..255
    alpha: np.ndarray  # (S, S) float32, 0..1
    centres: np.ndarray  # (T, 2) x, y in pixels
    angles: np.ndarray  # (T,) radians
    diameters: np.ndarray  # (T,) pixels
    aspect: float  # width over height before turning

    def area(self, frame):
        """The pixels the whole object would cover in a frame."""
        return float(self.alpha.sum()) * (self.diameters[frame] / self.alpha.shape[0]) ** 2


@dataclasses.dataclass(frozen=True)
class Scene:
    """Everything random about one video; sprites are ordered from the farthest to the nearest."""

    height: int
    width: int
    backdrop: np.ndarray  # (H', W', 3) uint8, larger than the frame
    offsets: np.ndarray  # (T, 2) x, y of the frame's corner in the backdrop: the camera drifts
    gains: np.ndarray  # (T,) brightness
    noise: np.ndarray  # (H', W', 3) int16, cut at a new place for each frame
    noise_offsets: np.ndarray  # (T, 2) int
    sprites: tuple[Sprite, ...]
    pillars: tuple  # of (first column, colours (H, w, 3) float32), in front of every sprite


def _wave(rng, times, low, high, periods):
    """A smooth periodic path between `low` and `high`: (T,); `periods` is the range of its period, frames."""
    phase, period = rng.uniform(0, 2 * math.pi), rng.uniform(*periods)
    return low + (high - low) * (0.5 + 0.5 * np.sin(2 * math.pi * times / period + phase))


def _bounce(rng, times, low, high, speeds):
    """A path of constant speed (pixels a frame, drawn from the range), thrown back at both ends: (T,)."""
    span = max(high - low, 1e-3)
    travelled = (rng.uniform(0, 2 * span) + rng.uniform(*speeds) * times) % (2 * span)
    return low + np.where(travelled < span, travelled, 2 * span - travelled)


def _away(rng, times):
    """How far out of the frame an object is that leaves once and returns: (T,) in 0..1, 0 at both ends."""
    frames = len(times)
    ramp = max(frames * 0.15, 1.0)
    hold = rng.uniform(1.0, max(frames * 0.25, 1.5))
    middle = rng.uniform(0.35, 0.65) * (frames - 1)
    x = np.clip((ramp + hold / 2 - np.abs(times - middle)) / ramp, 0, 1)
    return x * x * (3 - 2 * x)


def _entering(rng, times):
    """How far out of the frame an object still is that comes in late: (T,) in 0..1, from 1 to 0."""
    frames = len(times)
    ramp = max(frames * 0.15, 1.0)
    x = np.clip(1 - (times - rng.uniform(0.1, 0.5) * frames) / ramp, 0, 1)
    return x * x * (3 - 2 * x)


def _centres(rng, options, diameter):
    """An object's path: (T, 2) x, y in pixels. `diameter` is its largest."""
    times = np.arange(options.frames, dtype=np.float64)
    margin = 0.35 * diameter  # objects may hang over the border a little
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


def _labels(rng, options, count):
    """Category index of each of `count` objects: as often as `same_category` says, two or more share one."""
    kinds = len(options.categories)
    order = rng.permutation(kinds)
    if count < 2 or rng.random() >= options.same_category:
        return [int(order[i % kinds]) for i in range(count)]
    shared = int(rng.integers(2, count + 1))
    others = [int(order[1 + i % (kinds - 1)]) if kinds > 1 else int(order[0]) for i in range(count - shared)]
    return [int(order[0])] * shared + others


def _sprite(rng, options, label, hue, pattern):
    """An object of a category index with a path, a turn and a change of size of its own."""
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


def _pillars(options, index):
    """The walls of video `index`: first columns and colours (H, w, 3), see `Scene`."""
    # Drawn apart from the rest of the video, which so stays what it is without walls.
    rng = np.random.default_rng([options.seed, index, 1])
    walls = []
    for _ in range(options.pillars):
        width = round(rng.uniform(0.6, 1.1) * options.max_diameter * options.height)
        width = min(width, options.width // 2)
        left = int(rng.uniform(0.1, 0.9) * (options.width - width))
        walls.append((left, background(rng, options.height, width, options.height).astype(np.float32)))
    return tuple(walls)


def sample_scene(options, index):
    """Draw video `index` of a request."""
    rng = np.random.default_rng([options.seed, index])
    times = np.arange(options.frames, dtype=np.float64)
    count = int(rng.integers(options.min_objects, options.max_objects + 1))
    labels = _labels(rng, options, count)
    # Hues evenly apart, and patterns in a random order: what tells objects of one category from each other.
    hues = rng.random() + (np.arange(count) + rng.uniform(-0.25, 0.25, count)) / count
    patterns = [PATTERNS[i] for i in rng.permutation(len(PATTERNS))]
    sprites = [
        _sprite(rng, options, label, hue, patterns[i % len(patterns)])
        for i, (label, hue) in enumerate(zip(labels, hues))
    ]
    depth = rng.permutation(count)

    room = max(options.height // 6, 4)  # how far the camera may drift, pixels
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


def _warp(sprite, frame, height, width):
    """A sprite as it lies in one frame: colours (h, w, 3) and coverage (h, w), float32, and the corner (x, y)
    of that patch in the frame; None where it is wholly outside. Warped at twice the size, then averaged."""
    diameter, angle = sprite.diameters[frame], sprite.angles[frame]
    x, y = sprite.centres[frame]
    half = 0.5 * diameter * math.hypot(1, 1) * math.sqrt(max(sprite.aspect, 1 / sprite.aspect)) + 2
    left, top = max(math.floor(x - half), 0), max(math.floor(y - half), 0)
    right, bottom = min(math.ceil(x + half), width), min(math.ceil(y + half), height)
    if right <= left or bottom <= top:
        return None
    side = sprite.alpha.shape[0]
    scale = 2 * diameter / side
    wide, high = scale * math.sqrt(sprite.aspect), scale / math.sqrt(sprite.aspect)
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = np.array([[cos * wide, -sin * high, 0], [sin * wide, cos * high, 0]])
    centre = np.array([2 * (x - left) - 0.5, 2 * (y - top) - 0.5])
    matrix[:, 2] = centre - matrix[:, :2] @ np.full(2, (side - 1) / 2)
    doubled, single = (2 * (right - left), 2 * (bottom - top)), (right - left, bottom - top)
    colour = cv2.warpAffine(sprite.skin, matrix, doubled, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.warpAffine(sprite.alpha, matrix, doubled)
    colour, alpha = (cv2.resize(a, single, interpolation=cv2.INTER_AREA) for a in (colour, alpha))
    return colour, alpha, (left, top)


def render_frame(scene, frame):
    """Paint one frame: image (H, W, 3) uint8 and owner (H, W) uint8.

    `owner` is 1 + the index of the sprite that is seen at a pixel, or 0.
    """
    centre = scene.offsets[frame] + np.array([(scene.width - 1) / 2, (scene.height - 1) / 2])
    cut = cv2.getRectSubPix(scene.backdrop, (scene.width, scene.height), tuple(map(float, centre)))
    canvas = cut.astype(np.float32)
    owner = np.zeros((scene.height, scene.width), np.uint8)
    for index, sprite in enumerate(scene.sprites):
        warped = _warp(sprite, frame, scene.height, scene.width)
        if warped is None:
            continue
        colour, alpha, (left, top) = warped
        window = (slice(top, top + alpha.shape[0]), slice(left, left + alpha.shape[1]))
        canvas[window] += (colour - canvas[window]) * alpha[..., None]
        owner[window][alpha >= 0.5] = index + 1
    for left, colour in scene.pillars:
        canvas[:, left : left + colour.shape[1]] = colour
        owner[:, left : left + colour.shape[1]] = 0
    x, y = scene.noise_offsets[frame]
    canvas *= np.float32(scene.gains[frame])
    canvas += scene.noise[y : y + scene.height, x : x + scene.width]
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8), owner
