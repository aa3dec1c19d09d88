"""Draw strips of frames for the diagnosis page, with true masks above and predicted masks below."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from masktrack_jax.masks.rle import decode_mask
from masktrack_jax.masks.segmentations import to_rle
from masktrack_jax.runtime.copies import fetched
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import is_inside
from masktrack_jax.video.images import read_image
from masktrack_jax.video.overlay import draw_mask, track_color

CELL_WIDTH = 300  # pixels, twice the width on the page
MAX_FRAMES = 5
MAX_TRACKS = 4
TRUTH = (255, 255, 255)
_GAP = 6
_MISSING = 70  # grey level of a frame whose image is not found


class Strip(NamedTuple):
    """Data URI of a JPEG, the number of frames it shows, and how many of them have no image."""

    uri: str
    shown: int
    missing: int


def draw_strip(
    video: dict[str, Any],
    labels: Sequence[Sequence[Any]],
    tracks: Sequence[Sequence[Any]],
    frames: Sequence[int],
    frames_root: Path | None,
) -> Strip:
    """Draw labels and predicted tracks on a few frames of a video.

    Args:
      video: the record of the video in the annotations file.
      labels, tracks: the `segmentations` of the labels and of the predicted tracks to draw; track i has the
        colour `track_color(i)`, so a change of colour is a change of identity.
      frames: at least one; at most `MAX_FRAMES` of them are drawn, evenly spaced.
      frames_root: folder to which the video's `file_names` are relative. Frames whose image is not found or
        has another size are drawn grey and counted as missing.
    """
    places = np.linspace(0, len(frames) - 1, min(MAX_FRAMES, len(frames)))
    chosen = sorted({frames[round(i)] for i in places.tolist()})
    height, width = video["height"], video["width"]
    true = [_masks(labels, frame, height, width) for frame in chosen]
    predicted = [_masks(tracks, frame, height, width) for frame in chosen]
    window = _window(true if labels else predicted, height, width)
    columns, missing = [], 0
    for t, frame in enumerate(chosen):
        image = _read_frame(video, frame, frames_root, height, width)
        missing += image is None
        image = np.full((height, width, 3), _MISSING, np.uint8) if image is None else image
        image = np.ascontiguousarray(image[window])
        size = (CELL_WIDTH, max(1, round(CELL_WIDTH * image.shape[0] / image.shape[1])))
        cells = []
        for masks, colors in (
            (true[t], [TRUTH] * len(labels)),
            (predicted[t], [track_color(i) for i in range(len(tracks))]),
        ):
            cell = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            for mask, color in zip(masks, colors):
                if mask is not None:
                    draw_mask(cell, np.ascontiguousarray(mask[window]), color, 2)
            cells.append(cell)
        gap = np.full((_GAP, size[0], 3), 255, np.uint8)
        columns.append(np.concatenate([cells[0], gap, cells[1]]))
    gap = np.full((columns[0].shape[0], _GAP, 3), 255, np.uint8)
    blank = [np.full_like(columns[0], 255)] * (
        MAX_FRAMES - len(columns)
    )  # so that all strips have the same scale
    strip = np.concatenate([part for column in columns + blank for part in (column, gap)][:-1], axis=1)
    return Strip(_data_uri(strip), len(chosen), missing)


def _masks(tracks: Sequence[Sequence[Any]], frame: int, height: int, width: int) -> list[np.ndarray | None]:
    """The masks (height, width) uint8 of tracks in a frame, None where there is none or of another size."""
    masks: list[np.ndarray | None] = []
    for segmentations in tracks:
        segmentation = segmentations[frame] if frame < len(segmentations) else None
        rle = to_rle(segmentation, (height, width), any_size=True) if segmentation else None
        same_size = rle is not None and list(rle["size"]) == [height, width]
        masks.append(decode_mask(rle) if rle is not None and same_size else None)
    return masks


def _window(masks: Sequence[Sequence[np.ndarray | None]], height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns around all masks, with a margin, at least half of the frame's height and width."""
    covered = np.zeros((height, width), bool)
    for row in masks:
        for mask in row:
            if mask is not None:
                covered |= mask > 0
    if not covered.any():
        return slice(0, height), slice(0, width)
    rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
    # The same share of height and width keeps the aspect ratio of the frame.
    extent = max((np.ptp(rows) + 1) / height, (np.ptp(columns) + 1) / width)
    share = float(min(1.0, max(0.5, 1.4 * extent)))
    return _centred(rows, share, height), _centred(columns, share, width)


def _centred(places: np.ndarray, share: float, length: int) -> slice:
    """A slice with a share of `length`, centred on the sorted `places` unless it would exceed the ends."""
    span = round(share * length)
    start = int(np.clip((places[0] + places[-1]) / 2 - span / 2, 0, length - span))
    return slice(start, start + span)


def _read_frame(
    video: dict[str, Any], frame: int, frames_root: Path | None, height: int, width: int
) -> np.ndarray | None:
    """The image of a frame, None if it is missing or has another size."""
    names = video.get("file_names") or []
    if frames_root is None or frame >= len(names) or not is_inside(names[frame]):
        return None
    try:
        image = read_image(fetched(frames_root / names[frame]))
    except UserError:
        return None
    return image if image.shape[:2] == (height, width) else None


def _data_uri(image: np.ndarray) -> str:
    """Encode an image (H, W, 3) uint8 RGB as the value of an `src` attribute."""
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
