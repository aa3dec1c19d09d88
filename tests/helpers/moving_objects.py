"""Moving objects, and a segmenter whose detector knows where they are."""

from typing import Any

import numpy as np

from masktrack_jax.inference.frames import Resize
from masktrack_jax.inference.segmenter import Outputs, VideoSegmenter

CATEGORIES = [(4, "circle"), (9, "square")]
DETECTIONS = 5
# Of each frame: (height, width), and for each object its box, score, label and identity.
Truth = list[tuple[tuple[int, int], list[tuple[list[float], float, int, int]]]]
RESIZE = Resize(long_edge=64, short_edge=40, buckets=[(64, 64), (32, 64), (64, 32)])


class KnownDetector:
    """A `predict` that reads a frame's number from its first pixel and returns what `truth` holds for it.

    truth: for each frame its (height, width) and a list of (box in the frame's pixels, score, label, object).
    """

    def __init__(self, truth: Truth) -> None:
        self.truth, self.shapes = truth, []

    def __call__(self, images: np.ndarray, image_sizes: np.ndarray) -> Outputs:
        assert images.dtype == np.uint8 and image_sizes.dtype == np.int32
        self.shapes.append(images.shape)
        count = len(images)
        out = {
            "boxes": np.full((count, DETECTIONS, 4), np.nan, np.float32),
            "scores": np.full((count, DETECTIONS), 0.99, np.float32),
            "labels": np.zeros((count, DETECTIONS), np.int32),
            "probabilities": np.zeros((count, DETECTIONS, 2), np.float32),
            "valid": np.zeros((count, DETECTIONS), bool),
            "masks": np.ones((count, DETECTIONS, 28, 28), np.float32),
            "embeddings": np.full((count, DETECTIONS, 8), np.nan, np.float32),
            "cut": np.zeros(count, bool),
        }
        for i, (image, size) in enumerate(zip(images, image_sizes)):
            (height, width), objects = self.truth[int(image[0, 0, 0])]
            assert not image[size[0] :].any() and not image[:, size[1] :].any(), "padding"
            for j, (box, score, label, identity) in enumerate(objects):
                # Leave a gap between detections: validity, not position, says what counts.
                at = DETECTIONS - 1 - j
                out["boxes"][i, at] = np.array(box) * (size[[1, 0, 1, 0]] / [width, height, width, height])
                out["scores"][i, at], out["labels"][i, at] = score, label
                out["probabilities"][i, at, label] = score
                out["valid"][i, at] = True
                out["embeddings"][i, at] = 5 * np.eye(8)[identity]
        return out


def moving_objects(count: int, size: tuple[int, int] = (90, 150)) -> Truth:
    """The truth of `count` frames with three objects; one is away in the second quarter."""
    truth = []
    for t in range(count):
        objects = [
            ([5 + t, 10.5, 40 + t, 44.25], 0.9, 1, 0),
            ([60.3, 20 + t, 99.1, 60 + t], 0.8, 0, 1),
            ([100 - t, 50, 150 - t, 90], 0.7, 1, 2),
        ]
        truth.append((size, objects if not count // 4 <= t < count // 2 else objects[1:]))
    return truth


def frames_of(truth: Truth) -> list[np.ndarray]:
    """The frames of a truth, each with its number in every pixel."""
    return [np.full((*size, 3), index, np.uint8) for index, (size, _) in enumerate(truth)]


def segmenter_of(truth: Truth, **options: Any) -> VideoSegmenter:
    """A `VideoSegmenter` whose detector knows this truth."""
    return VideoSegmenter(
        KnownDetector(truth), CATEGORIES, resize=RESIZE, **{"frames_per_call": 4, **options}
    )
