"""Tracks drawn over a frame: a tinted mask with its outline, a box, and "name id score"."""

import colorsys

import cv2
import numpy as np

from masktrack_jax.masks.rle import decode_masks

LEGIBLE_LONG_EDGE = 640  # frames smaller than this are enlarged so that the text can be read
MASK_OPACITY = 0.45
GOLDEN_RATIO = (5**0.5 - 1) / 2


def overlay_scale(height, width):
    """Return the whole factor by which to enlarge a small frame so that its labels are legible."""
    return -(-LEGIBLE_LONG_EDGE // max(height, width))  # rounded up, so never 0


def track_color(track_id):
    """Return the colour (r, g, b) of a track, the same in every frame.

    Hues step by the golden ratio, so that ids near each other lie far apart on the colour circle however
    many there are; brightness takes turns to part what hue alone does not.
    """
    hue = (0.02 + GOLDEN_RATIO * track_id) % 1.0
    saturation, value = [(0.85, 1.0), (0.65, 0.95), (0.95, 0.8)][track_id % 3]
    return tuple(round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, saturation, value))


def draw_tracks(frame, masks, boxes, names, ids, scores, scale=1):
    """Return a new frame (scale·H, scale·W, 3) uint8 with its n tracks drawn.

    frame (H, W, 3) uint8 RGB; masks: n RLE dicts or an array (n, H, W); boxes (n, 4) in the frame's pixels;
    names, ids, scores: n strings, integers and numbers. `scale` (see `overlay_scale`) enlarges frame and
    drawing together. Better scores are drawn over worse.
    """
    height, width = frame.shape[:2]
    if len(masks) and isinstance(masks[0], dict):
        masks = decode_masks(masks, height, width)
    size = (width * scale, height * scale)
    canvas = cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) if scale > 1 else frame.copy()
    line = max(1, round(max(size) / 640))
    order = np.argsort(scores, kind="stable")
    for i in order:
        draw_mask(canvas, masks[i], track_color(int(ids[i])), line)
    corners = np.rint(np.asarray(boxes, np.float64).reshape(-1, 4) * scale).astype(int).tolist()
    for i in order:
        cv2.rectangle(canvas, corners[i][:2], corners[i][2:], track_color(int(ids[i])), line, cv2.LINE_AA)
    taken = []
    for i in order[::-1]:  # the best first: they get the best places
        text = f"{names[i]} {int(ids[i])} {scores[i]:.2f}"
        _draw_label(canvas, text, corners[i], track_color(int(ids[i])), taken)
    return canvas


def draw_mask(canvas, mask, color, line):
    """Tint the canvas, in place, where the mask is set, and draw the mask's outline."""
    if canvas.shape[:2] != mask.shape:
        # Interpolated and cut at a half: a smooth edge instead of stairs.
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


def _draw_label(canvas, text, box, color, taken):
    """Write `text` on a plate at the box's upper edge, clear of the plates in `taken`; add it to them."""
    height, width = canvas.shape[:2]
    font, font_scale = cv2.FONT_HERSHEY_SIMPLEX, np.clip(max(height, width) / 1600, 0.4, 1.5)
    thickness = max(1, round(1.5 * font_scale))
    (text_width, text_height), baseline = cv2.getTextSize(text, font, font_scale, thickness)
    pad = max(2, text_height // 4)
    plate_width, plate_height = text_width + 2 * pad, text_height + baseline + pad
    left, top = _place(box, plate_width, plate_height, height, width, taken)
    taken.append((left, top, left + plate_width, top + plate_height))
    cv2.rectangle(canvas, (left, top), (left + plate_width, top + plate_height), color, cv2.FILLED)
    bright = np.dot(color, (0.299, 0.587, 0.114)) > 140
    ink = (0, 0, 0) if bright else (255, 255, 255)
    origin = (left + pad, top + pad + text_height)
    cv2.putText(canvas, text, origin, font, font_scale, ink, thickness, cv2.LINE_AA)


def _place(box, plate_width, plate_height, height, width, taken):
    """Return where a plate goes: above the box, else just inside it, else stepping down past other plates."""
    left = int(np.clip(box[0], 0, max(0, width - plate_width)))
    lowest = max(0, height - plate_height)
    steps = [box[1] - plate_height, box[1], box[3] - plate_height, box[3]]
    steps += [box[1] + step * plate_height for step in range(1, 6)]
    for top in steps:
        top = int(top)
        spot = (left, top, left + plate_width, top + plate_height)
        if 0 <= top <= lowest and not any(_overlap(spot, other) for other in taken):
            return left, top
    return left, int(np.clip(box[1] - plate_height, 0, lowest))


def _overlap(one, other):
    """Tell whether two rectangles (left, top, right, bottom) overlap."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
