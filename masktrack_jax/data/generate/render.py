"""Render the frames of a generated video, with a map of the visible object at each pixel."""

import math
from typing import NamedTuple

import cv2
import numpy as np

from masktrack_jax.data.generate.scene import Scene, Sprite


class Patch(NamedTuple):
    """A sprite as it appears in one frame."""

    colour: np.ndarray  # (h, w, 3) float32
    alpha: np.ndarray  # (h, w) float32, coverage
    left: int  # of the patch in the frame
    top: int


def render_frame(scene: Scene, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Render one frame: image (H, W, 3) uint8 and owner (H, W) uint8.

    `owner` is 1 + the index of the visible sprite at a pixel, or 0.
    """
    centre = scene.offsets[frame] + np.array([(scene.width - 1) / 2, (scene.height - 1) / 2])
    cut = cv2.getRectSubPix(scene.backdrop, (scene.width, scene.height), tuple(map(float, centre)))
    canvas = cut.astype(np.float32)
    owner = np.zeros((scene.height, scene.width), np.uint8)
    for index, sprite in enumerate(scene.sprites):
        patch = _warp(sprite, frame, scene.height, scene.width)
        if patch is None:
            continue
        colour, alpha, left, top = patch
        window = (slice(top, top + alpha.shape[0]), slice(left, left + alpha.shape[1]))
        canvas[window] += (colour - canvas[window]) * alpha[..., None]
        owner[window][alpha >= 0.5] = index + 1
    for pillar in scene.pillars:
        columns = slice(pillar.left, pillar.left + pillar.colour.shape[1])
        canvas[:, columns] = pillar.colour
        owner[:, columns] = 0
    x, y = scene.noise_offsets[frame]
    canvas *= np.float32(scene.gains[frame])
    canvas += scene.noise[y : y + scene.height, x : x + scene.width]
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8), owner


def _warp(sprite: Sprite, frame: int, height: int, width: int) -> Patch | None:
    """Render a sprite in one frame, at twice the size and then averaged; None if it is outside."""
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
    return Patch(colour, alpha, left, top)
