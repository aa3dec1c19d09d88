"""Pixels to run lengths and back; areas and boxes against the pixels."""

import numpy as np
from pycocotools import mask as mask_api

from masktrack_jax.masks.rle import decode_mask, decode_masks, encode_mask, encode_masks, mask_area, mask_box


def test_run_lengths_there_and_back():
    rng = np.random.default_rng(1)
    masks = (rng.random((5, 17, 23)) < 0.4).astype(np.uint8)
    masks[3], masks[4] = 0, 1
    rles = encode_masks(masks)
    assert rles[0]["size"] == [17, 23] and isinstance(rles[0]["counts"], str)
    np.testing.assert_array_equal(decode_masks(rles, 17, 23), masks)
    assert mask_api.area(rles).tolist() == masks.sum(axis=(1, 2)).tolist()


def test_one_mask_is_encoded_and_decoded_like_many():
    rng = np.random.default_rng(2)
    masks = rng.random((4, 9, 14)) < 0.2
    masks[3] = False
    assert [encode_mask(mask) for mask in masks] == encode_masks(masks)
    for mask in masks:
        decoded = decode_mask(encode_mask(mask))
        np.testing.assert_array_equal(decoded, mask)
        assert decoded.flags.c_contiguous and decoded.dtype == np.uint8


def test_areas_and_boxes():
    mask = np.zeros((9, 14), bool)
    mask[2:5, 3:9] = True
    mask[2, 3] = False
    assert mask_area(encode_mask(mask)) == 17
    assert mask_box(encode_mask(mask)) == [3, 2, 6, 3]
    assert mask_area(encode_mask(mask & False)) == 0
