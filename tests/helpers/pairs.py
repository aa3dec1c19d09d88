"""Drawn frame pairs for the training step, and how devices share them."""

import jax
import numpy as np

from masktrack_jax.data.batches import FramePairs, Frames, FrameTargets

ROWS, SIZE = 4, (64, 96)


def empty_frames(n: int, image: np.ndarray, targets: FrameTargets | None = None) -> Frames:
    """`n` frames without objects, whose last four rows of pixels are padding."""
    return Frames(
        image=image,
        image_size=np.tile(np.int32([60, 96]), (n, 1)),
        boxes=np.zeros((n, ROWS, 4), np.float32),
        valid=np.zeros((n, ROWS), bool),
        targets=targets,
    )


def make_pairs(rng: np.random.Generator, objects: tuple[int, ...]) -> FramePairs:
    """Pairs of 64 × 96 frames with `objects[i]` bright rectangles each, which move by two pixels."""
    n = len(objects)
    image = rng.integers(0, 90, (n, *SIZE, 3)).astype(np.uint8)
    targets = FrameTargets(
        labels=np.zeros((n, ROWS), np.int32),
        masks=np.zeros((n, ROWS, SIZE[0], SIZE[1] // 8), np.uint8),
        matches=np.zeros((n, ROWS), np.int32),
    )
    key, reference = empty_frames(n, image, targets), empty_frames(n, image.copy())
    for i, count in enumerate(objects):
        for k in range(count):
            x, y = 4 + 30 * k + int(rng.integers(4)), int(rng.integers(4, 20))
            w, h = (int(side) for side in rng.integers(12, 24, 2))
            label = int(rng.integers(3))
            colour = np.eye(3)[label] * 150 + 100
            key.image[i, y : y + h, x : x + w] = colour
            reference.image[i, y : y + h, x + 2 : x + 2 + w] = colour
            key.boxes[i, k] = [x, y, x + w, y + h]
            reference.boxes[i, count - 1 - k] = [x + 2, y, x + 2 + w, y + h]  # in another order
            mask = np.zeros(SIZE, np.uint8)
            mask[y : y + h, x : x + w] = 1
            targets.masks[i, k] = np.packbits(mask, axis=1)
            targets.labels[i, k], key.valid[i, k] = label, True
            reference.valid[i, k] = k > 0 or count == 1
        for k in range(count):
            there = reference.valid[i, count - 1 - k]
            targets.matches[i, k] = count - k if there else 0
    return FramePairs(key, reference)


def over_devices(pairs: FramePairs, devices: int) -> FramePairs:
    """`pairs` as `step.parallel` takes them."""
    return jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), pairs)
