"""Prepare frames for the detector, and convert its detections to pixels of the original frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from masktrack_jax.masks.paste import encode_pasted
from masktrack_jax.masks.rle import Rle
from masktrack_jax.tracking.memory import Frame
from masktrack_jax.video.images import bucket_for, fit_scale, fit_size, pad_image, resize_image

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class FrameDetections:
    """The n detections of one frame before association, in the order of the association.

    size: (height, width) of the original frame; boxes (n, 4) float32 x1, y1, x2, y2 in its pixels; scores
    (n,); labels (n,) 0…K−1; probabilities (n, K) of the classes; embeddings (n, E). Either `masks` (n, m, m),
    probabilities over the box, or after `encoded` `rles`, n compressed RLEs at the frame's size.
    """

    size: Size
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    embeddings: np.ndarray
    masks: np.ndarray | None = None
    rles: list[Rle] | None = None

    @property
    def to_associate(self) -> Frame:
        """The fields used by the association."""
        return Frame(self.boxes, self.scores, self.labels, self.embeddings)

    def encoded(self, pixel_boxes: bool = False) -> FrameDetections:
        """Return the same detections with RLEs, for repeated association or for storage."""
        if self.rles is not None:
            return self
        if self.masks is None:
            raise ValueError("detections have neither masks nor RLEs")
        rles = encode_pasted(self.masks, self.boxes, *self.size, pixel_boxes)
        return replace(self, masks=None, rles=rles)

    def rows(self, keep: np.ndarray) -> FrameDetections:
        """Return the detections `keep` (a boolean mask or indices)."""
        arrays = ("boxes", "scores", "labels", "probabilities", "embeddings", "masks")
        kept: dict[str, Any] = {
            name: getattr(self, name)[keep] for name in arrays if getattr(self, name) is not None
        }
        if self.rles is not None:
            kept["rles"] = [self.rles[i] for i in np.arange(len(self.rles))[keep]]
        return replace(self, **kept)


@dataclass(frozen=True)
class Resize:
    """Resizes frames and pads them to a bucket, for the detector.

    long_edge, short_edge: limits of the frame's size, see `video.images.fit_size`.
    buckets: the padded (height, width) sizes; the smallest one that holds the frame is used.
    """

    long_edge: int
    short_edge: int
    buckets: Sequence[Size]

    def prepare(self, frame: np.ndarray) -> PreparedFrame:
        """Resize a frame (H, W, 3) and pad it to its bucket."""
        height, width = frame.shape[:2]
        rows, columns = fit_size(height, width, self.long_edge, self.short_edge)
        bucket = bucket_for(rows, columns, self.buckets)
        return PreparedFrame(
            image=pad_image(resize_image(frame, rows, columns), *bucket),
            resized=(rows, columns),
            original=(height, width),
            scale=fit_scale(height, width, self.long_edge, self.short_edge),
        )


@dataclass(frozen=True)
class PreparedFrame:
    """A frame as input of the detector.

    image: padded to its bucket; resized, original: sizes before padding and before resizing; scale: the
    factor of resizing before sizes are rounded to whole pixels.
    """

    image: np.ndarray
    resized: Size
    original: Size
    scale: float

    def at_frame_size(self, boxes: np.ndarray, pixel_boxes: bool) -> np.ndarray:
        """Convert boxes (n, 4) from pixels of the resized frame to pixels of the original one."""
        if pixel_boxes:
            return pixel_boxes_at_frame_size(boxes, self.scale)
        return boxes_at_frame_size(boxes, self.resized, self.original)


def detection_order(
    scores: np.ndarray,
    labels: np.ndarray,
    valid: np.ndarray,
    cut: bool | np.ndarray,
    order_when_cut: str = "class",
) -> np.ndarray:
    """Return the indices of a frame's valid detections (D,) in the order of the association.

    The greedy association numbers new objects in this order. Detections are grouped by class, best first
    within a class, as in mmtracking, whose detector returns one list per class. `order_when_cut` "score" is
    the authors' form: if there were more than D detections (`cut`), they are ordered by descending score.
    """
    chosen = np.flatnonzero(valid)
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
    if order_when_cut == "score" and cut:
        return chosen
    return chosen[np.argsort(labels[chosen], kind="stable")]


def boxes_at_frame_size(boxes: np.ndarray, resized: Size, original: Size) -> np.ndarray:
    """Convert boxes (n, 4) of a resized (h, w) frame to pixels of the original one, clipped to it, float32.

    Each axis has its own factor, from the rounded sizes, like mmtracking's scale_factor.
    """
    (resized_height, resized_width), (height, width) = resized, original
    factor = np.array([resized_width / width, resized_height / height] * 2, np.float32)
    limit = np.array([width, height] * 2, np.float32)
    return np.clip(np.asarray(boxes, np.float32) / factor, 0, limit)


def pixel_boxes_at_frame_size(boxes: np.ndarray, scale: float) -> np.ndarray:
    """`boxes_at_frame_size` in the authors' form: first and last pixels, with one factor for both axes."""
    last = np.array([0, 0, 1, 1], np.float32)
    return (np.asarray(boxes, np.float32) - last) / np.float32(scale) + last
