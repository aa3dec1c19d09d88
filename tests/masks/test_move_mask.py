"""Masks moved with their boxes, against a pixel-by-pixel version."""

import numpy as np

from masktrack_jax.masks.paste import move_mask
from masktrack_jax.masks.rle import encode_masks
from tests.helpers.rectangles import rectangle, shown


def test_moved_mask_equals_a_look_at_every_pixel() -> None:
    """Output pixel (y, x) is the input's pixel under its centre, taken back from `target` to `box`."""
    rng = np.random.default_rng(0)
    height, width = size = (23, 31)
    for _ in range(30):
        mask = (rng.random(size) < 0.5).astype(np.uint8)
        (x1, y1), (w, h) = rng.uniform(0, 15, 2), rng.uniform(3, 15, 2)
        (u1, v1), (p, q) = rng.uniform(-5, 25, 2), rng.uniform(3, 20, 2)
        box, target = (x1, y1, x1 + w, y1 + h), (u1, v1, u1 + p, v1 + q)
        moved = shown(move_mask(encode_masks(mask[None])[0], box, target), size)
        for y in range(height):
            for x in range(width):
                from_x, from_y = x1 + (x + 0.5 - u1) * w / p, y1 + (y + 0.5 - v1) * h / q
                inside = 0 <= from_x < width and 0 <= from_y < height
                assert moved[y, x] == (mask[int(from_y), int(from_x)] if inside else 0)


def test_a_box_without_area_moves_its_mask() -> None:
    (rle,) = encode_masks(rectangle(5, 6, 9, 9)[None])
    moved = move_mask(rle, (5, 6, 5, 6), (8, 4, 20, 9))
    np.testing.assert_array_equal(shown(moved), rectangle(8, 4, 12, 7))
