"""Draw tracks on a frame: a tinted mask with its outline, a box, and "name id score"."""

import colorsys
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

LEGIBLE_LONG_EDGE = 640  # smaller frames are enlarged so that the text is legible
MASK_OPACITY = 0.45
GOLDEN_RATIO = (5**0.5 - 1) / 2
Color = tuple[int, int, int]  # red, green, blue


class _Rectangle(NamedTuple):
    """Pixels left ≤ x < right, top ≤ y < bottom."""

    left: int
    top: int
    right: int
    bottom: int

    def overlaps(self, other: "_Rectangle") -> bool:
        """Whether the two have pixels in common."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


def overlay_scale(height: int, width: int) -> int:
    """The integer factor by which to enlarge a small frame so that its labels are legible."""
    return -(-LEGIBLE_LONG_EDGE // max(height, width))  # rounded up, so never 0


def track_color(track_id: int) -> Color:
    """The colour of a track, the same in every frame.

    Hues advance by the golden ratio, so consecutive ids are far apart on the colour circle for any number of
    tracks. Saturation and brightness alternate to separate similar hues.
    """
    hue = (0.02 + GOLDEN_RATIO * track_id) % 1.0
    saturation, value = [(0.85, 1.0), (0.65, 0.95), (0.95, 0.8)][track_id % 3]
    red, green, blue = (round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue


def draw_tracks(
    frame: np.ndarray,
    masks: np.ndarray,
    boxes: Sequence[Sequence[float]] | np.ndarray,
    names: Sequence[str],
    ids: Sequence[int] | np.ndarray,
    scores: Sequence[float] | np.ndarray,
    scale: int = 1,
) -> np.ndarray:
    """Draw the n tracks of a frame on a copy of it, (scale·H, scale·W, 3) uint8; higher scores on top.

    Args:
      frame: (H, W, 3) uint8 RGB.
      masks: (n, H, W) uint8.
      boxes: (n, 4) in pixels of the frame.
      names, ids, scores: values of the n tracks.
      scale: factor by which the frame and the drawing are enlarged, see `overlay_scale`.
    """
    height, width = frame.shape[:2]
    size = (width * scale, height * scale)
    canvas = cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) if scale > 1 else frame.copy()
    line = max(1, round(max(size) / 640))
    order = np.argsort(scores, kind="stable")
    for i in order:
        draw_mask(canvas, masks[i], track_color(int(ids[i])), line)
    corners = np.rint(np.asarray(boxes, np.float64).reshape(-1, 4) * scale).astype(int).tolist()
    for i in order:
        cv2.rectangle(canvas, corners[i][:2], corners[i][2:], track_color(int(ids[i])), line, cv2.LINE_AA)
    taken: list[_Rectangle] = []
    for i in order[::-1]:  # by descending score: the first labels get the best places
        text = f"{names[i]} {int(ids[i])} {scores[i]:.2f}"
        _draw_label(canvas, text, corners[i], track_color(int(ids[i])), taken)
    return canvas


def draw_mask(canvas: np.ndarray, mask: np.ndarray, color: Color, line: int) -> None:
    """Tint the canvas (H, W, 3) in place where the mask is set and draw the outline, `line` pixels wide."""
    if canvas.shape[:2] != mask.shape:
        # Interpolation with a threshold of one half gives smooth edges instead of steps.
        enlarged = cv2.resize(255 * np.ascontiguousarray(mask), canvas.shape[1::-1])
        mask = (enlarged >= 128).astype(np.uint8)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return
    window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    inside, region = np.ascontiguousarray(mask[window]), canvas[window]
    tint = (1 - MASK_OPACITY) * np.arange(256)[:, None] + MASK_OPACITY * np.array(color)
    cv2.copyTo(cv2.LUT(region, np.rint(tint).astype(np.uint8)[None]), inside, region)
    offset = (int(columns[0]), int(rows[0]))
    outlines, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_TC89_L1, offset=offset)
    cv2.polylines(canvas, outlines, True, color, line, cv2.LINE_AA)


def _draw_label(
    canvas: np.ndarray, text: str, box: Sequence[int], color: Color, taken: list[_Rectangle]
) -> None:
    """Write `text` on a filled rectangle at the upper edge of the box, clear of `taken`, and add it there."""
    height, width = canvas.shape[:2]
    font, font_scale = cv2.FONT_HERSHEY_SIMPLEX, np.clip(max(height, width) / 1600, 0.4, 1.5)
    thickness = max(1, round(1.5 * font_scale))
    (text_width, text_height), baseline = cv2.getTextSize(text, font, font_scale, thickness)
    pad = max(2, text_height // 4)
    label_size = text_height + baseline + pad, text_width + 2 * pad
    place = _place_label(box, label_size, (height, width), taken)
    taken.append(place)
    cv2.rectangle(canvas, (place.left, place.top), (place.right, place.bottom), color, cv2.FILLED)
    bright = np.dot(color, (0.299, 0.587, 0.114)) > 140
    ink = (0, 0, 0) if bright else (255, 255, 255)
    origin = (place.left + pad, place.top + pad + text_height)
    cv2.putText(canvas, text, origin, font, font_scale, ink, thickness, cv2.LINE_AA)


def _place_label(
    box: Sequence[int], label_size: tuple[int, int], frame_size: tuple[int, int], taken: Sequence[_Rectangle]
) -> _Rectangle:
    """The place of a label: above the box, else inside it, else below other labels. Sizes are (h, w)."""
    (height, width), (frame_height, frame_width) = label_size, frame_size
    left = int(np.clip(box[0], 0, max(0, frame_width - width)))
    lowest = max(0, frame_height - height)
    tops = [box[1] - height, box[1], box[3] - height, box[3]]
    tops += [box[1] + step * height for step in range(1, 6)]
    for top in tops:
        place = _Rectangle(left, top, left + width, top + height)
        if 0 <= top <= lowest and not any(map(place.overlaps, taken)):
            return place
    top = int(np.clip(box[1] - height, 0, lowest))
    return _Rectangle(left, top, left + width, top + height)
