"""Pasting against a pixel-by-pixel version, and against OpenCV for boxes of whole pixels."""

import cv2
import numpy as np
import pytest

from masktrack_jax.masks.paste import encode_pasted, paste_masks
from masktrack_jax.masks.rle import decode_masks, encode_masks


def slow_value(probability, box, x, y):
    """The bilinear value of the stretched probability at the centre of pixel (x, y), zero outside."""
    size = len(probability)
    u = (x + 0.5 - box[0]) / (box[2] - box[0]) * size - 0.5
    v = (y + 0.5 - box[1]) / (box[3] - box[1]) * size - 0.5
    left, top = int(np.floor(u)), int(np.floor(v))
    value = 0.0
    for row, row_weight in ((top, top + 1 - v), (top + 1, v - top)):
        for column, column_weight in ((left, left + 1 - u), (left + 1, u - left)):
            if 0 <= row < size and 0 <= column < size:
                value += row_weight * column_weight * float(probability[row, column])
    return value


BOXES = np.array(
    [
        [3.2, 4.7, 20.9, 17.3],  # inside
        [-8.5, -3.25, 11.0, 40.0],  # beyond three edges
        [0, 0, 33, 24],  # the frame
        [12.3, 9.2, 12.9, 10.4],  # narrower than a pixel
        [30.6, 20.5, 60.0, 50.0],  # beyond the far corner
        [50, 50, 60, 60],  # outside
        [5.0, 4.0, 6.0, 22.0],  # one pixel wide
    ],
    np.float32,
)


def test_paste_equals_the_slow_version_at_every_pixel():
    rng = np.random.default_rng(0)
    height, width = 24, 33
    probabilities = rng.random((len(BOXES), 28, 28), dtype=np.float32)
    masks = paste_masks(probabilities, BOXES, height, width)
    assert masks.shape == (len(BOXES), height, width) and masks.dtype == np.uint8
    assert all(mask.flags.f_contiguous for mask in masks)
    for mask, probability, box in zip(masks, probabilities, BOXES.astype(float)):
        values = [[slow_value(probability, box, x, y) for x in range(width)] for y in range(height)]
        decided = np.abs(np.array(values) - 0.5) > 1e-5  # nearer, float32 may fall either way
        assert decided.mean() > 0.999
        np.testing.assert_array_equal(mask[decided], (np.array(values) >= 0.5)[decided])


def test_paste_of_whole_pixels_is_opencvs_resize():
    rng = np.random.default_rng(1)
    height, width = 60, 90
    corners = np.sort(rng.uniform(0, 1, (40, 2, 2)) * [width - 1, height - 1], axis=1)
    boxes = corners.reshape(-1, 4).astype(np.float32)
    boxes[0, 2:] = boxes[0, :2]  # first and last pixel are the same one
    boxes[1, 2:] = boxes[1, :2] - 0.4  # smaller than a pixel, scaled up: the last may lie before the first
    probabilities = rng.random((40, 28, 28), dtype=np.float32)
    masks = paste_masks(probabilities, np.add(boxes, [0, 0, 1, 1]), height, width, pixel_boxes=True)
    for mask, probability, box in zip(masks, probabilities, boxes):
        x1, y1, x2, y2 = box.astype(int)
        size = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
        expected = np.zeros((height, width), np.float32)
        inside = cv2.resize(probability, size, interpolation=cv2.INTER_LINEAR)
        expected[y1 : y1 + size[1], x1 : x1 + size[0]] = inside
        decided = np.abs(expected - 0.5) > 1e-5
        assert decided.mean() > 0.999
        np.testing.assert_array_equal(mask[decided], (expected > 0.5)[decided])


def test_full_probability_fills_exactly_the_pixels_whose_centres_lie_in_the_box():
    mask = paste_masks(np.ones((1, 28, 28), np.float32), np.array([[2.5, 1.6, 6.5, 4.4]]), 8, 10)[0]
    expected = np.zeros((8, 10), np.uint8)
    expected[2:4, 2:7] = 1  # both edges in x pass through centres, where the value is just 0.5
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("box", [[4, 4, 4, 9], [4, 9, 8, 9], [6, 6, 2, 2], [np.nan, 0, 4, 4]])
def test_box_without_area_gives_an_empty_mask(box):
    assert not paste_masks(np.ones((1, 28, 28), np.float32), np.array([box], np.float32), 12, 12).any()


def test_encode_pasted_is_paste_then_encode_and_none_is_fine():
    rng = np.random.default_rng(2)
    probabilities = rng.random((len(BOXES), 28, 28), dtype=np.float32)
    expected = encode_masks(paste_masks(probabilities, BOXES, 24, 33))
    assert encode_pasted(probabilities, BOXES, 24, 33) == expected
    assert encode_pasted(probabilities[:0], BOXES[:0], 24, 33) == []
    assert paste_masks(probabilities[:0], BOXES[:0], 24, 33).shape == (0, 24, 33)
    assert encode_masks(np.zeros((0, 24, 33), np.uint8)) == []
    assert decode_masks([], 24, 33).shape == (0, 24, 33)
