"""Strips of frames with the true masks above and the predicted ones below, for the diagnosis page."""

import base64

import cv2
import numpy as np

from masktrack_jax.data.images import read_image
from masktrack_jax.masks.rle import decode_mask
from masktrack_jax.masks.segmentations import to_rle
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import is_inside
from masktrack_jax.video.overlay import draw_mask, track_color

CELL_WIDTH = 300  # pixels, twice what it takes on the page
FRAMES = 5
TRACKS = 4  # at most so many in one picture
TRUTH = (255, 255, 255)
_GAP = 6
_BLANK = 70  # grey of a frame that cannot be found


def draw_strip(video, labels, tracks, frames, frames_root):
    """One picture of a few frames of a video, predicted below true.

    Args:
      video: its record in the annotations file.
      labels, tracks: records of the labels and of the predicted tracks to draw; track i has
        `track_color(i)`, so a change of colour is a change of identity.
      frames: the frames among which to choose, at most `FRAMES`, evenly.
      frames_root: folder that the video's `file_names` are relative to.
    Returns:
      (data URI of a JPEG, number of frames shown, number of those whose image was not found or did not
      fit; they are grey).
    """
    chosen = sorted({frames[round(i)] for i in np.linspace(0, len(frames) - 1, min(FRAMES, len(frames)))})
    true = [_masks(labels, frame, video) for frame in chosen]
    predicted = [_masks(tracks, frame, video) for frame in chosen]
    height, width = _frame_size(video, true + predicted)
    top, bottom, left, right = _window(true if labels else predicted, height, width)
    columns, missing = [], 0
    for t, frame in enumerate(chosen):
        image = _read_frame(video, frame, frames_root, height, width)
        missing += image is None
        image = np.full((height, width, 3), _BLANK, np.uint8) if image is None else image
        image = np.ascontiguousarray(image[top:bottom, left:right])
        size = (CELL_WIDTH, max(1, round(CELL_WIDTH * image.shape[0] / image.shape[1])))
        cells = []
        for masks, colors in (
            (true[t], [TRUTH] * len(labels)),
            (predicted[t], [track_color(i) for i in range(len(tracks))]),
        ):
            cell = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            for mask, color in zip(masks, colors):
                if mask is not None and mask.shape == (height, width):
                    draw_mask(cell, np.ascontiguousarray(mask[top:bottom, left:right]), color, 2)
            cells.append(cell)
        gap = np.full((_GAP, size[0], 3), 255, np.uint8)
        columns.append(np.concatenate([cells[0], gap, cells[1]]))
    gap = np.full((columns[0].shape[0], _GAP, 3), 255, np.uint8)
    blank = [np.full_like(columns[0], 255)] * (FRAMES - len(columns))  # all strips at one scale
    strip = np.concatenate([part for column in columns + blank for part in (column, gap)][:-1], axis=1)
    return _data_uri(strip), len(chosen), missing


def _masks(records, frame, video):
    """The masks (H, W) uint8 of records in a frame, None where there is none."""
    masks = []
    for record in records:
        segmentations = record["segmentations"]
        segmentation = segmentations[frame] if frame < len(segmentations) else None
        size = (video.get("height"), video.get("width"))
        masks.append(decode_mask(to_rle(segmentation, size, any_size=True)) if segmentation else None)
    return masks


def _frame_size(video, masks):
    """(height, width) from the video's record or, failing that, from a mask."""
    if isinstance(video.get("height"), int) and isinstance(video.get("width"), int):
        return video["height"], video["width"]
    return next(mask.shape for row in masks for mask in row if mask is not None)


def _window(masks, height, width):
    """(top, bottom, left, right) around all masks, with some air, at least half the frame each way."""
    seen = np.zeros((height, width), bool)
    for row in masks:
        for mask in row:
            if mask is not None and mask.shape == seen.shape:
                seen |= mask > 0
    if not seen.any():
        return 0, height, 0, width
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    # One share for both sides keeps the proportions of the frame.
    share = max((np.ptp(rows) + 1) / height, (np.ptp(columns) + 1) / width)
    share = min(1.0, max(0.5, 1.4 * share))
    spans = []
    for places, length in ((rows, height), (columns, width)):
        span = round(share * length)
        start = int(np.clip((places[0] + places[-1]) / 2 - span / 2, 0, length - span))
        spans += [start, start + span]
    return tuple(spans)


def _read_frame(video, frame, frames_root, height, width):
    """The image of a frame, None where it cannot be had."""
    names = video.get("file_names") or []
    if frames_root is None or frame >= len(names) or not is_inside(names[frame]):
        return None
    try:
        image = read_image(frames_root / names[frame])
    except UserError:
        return None
    return image if image.shape[:2] == (height, width) else None


def _data_uri(image):
    """A picture (H, W, 3) uint8 RGB as the text of an `src` attribute."""
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
