"""Random boxes, and the overlap of two boxes in plain Python."""

from collections.abc import Sequence

import numpy as np


def random_boxes(rng: np.random.Generator, n: int, height: int = 120, width: int = 200) -> np.ndarray:
    """Boxes (n, 4) float32 inside an image, at least a pixel large."""
    corner = rng.uniform(0, [width - 5, height - 5], (n, 2))
    size = rng.uniform(1, [width, height], (n, 2))
    return np.concatenate([corner, np.minimum(corner + size, [width, height])], 1).astype(np.float32)


def iou_of(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """Intersection over union of two boxes."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(w, 0.0) * max(h, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
    return overlap / union if union > 0 else 0.0
