"""Decoding and suppression of boxes, one at a time."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.helpers.boxes import iou_of


def decode_box(anchor: np.ndarray, delta: np.ndarray, size: Sequence[int]) -> list[float]:
    """Box of one delta, already multiplied by its stds, clipped to `size` = height, width."""
    (ax1, ay1, ax2, ay2), (dx, dy, dw, dh) = anchor, delta
    w, h = ax2 - ax1, ay2 - ay1
    x, y = (ax1 + ax2) / 2 + dx * w, (ay1 + ay2) / 2 + dy * h
    w, h = w * np.exp(dw), h * np.exp(dh)
    x1, x2 = np.clip([x - w / 2, x + w / 2], 0, size[1])
    y1, y2 = np.clip([y - h / 2, y + h / 2], 0, size[0])
    return [x1, y1, x2, y2]


def greedy_nms(candidates: list[tuple[Any, ...]], threshold: float) -> list[tuple[Any, ...]]:
    """The kept ones of (score, box, group, …), best first; candidates of different groups do not compete."""
    kept = []
    for score, box, group, *rest in sorted(candidates, key=lambda c: -c[0]):
        if all(other[2] != group or iou_of(other[1], box) <= threshold for other in kept):
            kept.append((score, box, group, *rest))
    return kept
