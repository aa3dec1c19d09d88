"""Mask targets against RoIAlign's definition and mmdet's recorded targets."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from masktrack_jax.ops.mask_targets import crop_masks, resize_masks, unpack_bits
from tests.helpers.boxes import random_boxes
from tests.helpers.roi_align import slow_roi_align

run = jax.jit(crop_masks, static_argnums=(3, 4))


def test_unpack_bits_is_numpys():
    packed = np.random.default_rng(0).integers(0, 256, (3, 5, 4), dtype=np.uint8)
    np.testing.assert_array_equal(unpack_bits(jnp.asarray(packed)), np.unpackbits(packed, axis=-1))


def test_crop_is_roi_align_of_the_mask():
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:40, :64]
    masks = np.stack([(y - 20) ** 2 + (x - 30) ** 2 < 200, (x + y) % 24 < 12, x > 20]).astype(np.uint8)
    boxes = random_boxes(rng, 12, 40, 64)
    boxes[:3] = [[0, 0, 64, 40], [40, 0, 64, 40], [10, 10, 12, 11]]
    index = rng.integers(3, size=12)
    boxes[3], index[3] = [63.5, 39.5, 64, 40], 2  # beyond the last pixel's middle: the pixel's own value
    got = run(np.packbits(masks, axis=-1), boxes, index, 14)
    assert got.shape == (12, 14, 14) and set(np.unique(got)) == {0, 1}
    for k in range(12):
        share = slow_roi_align(masks[index[k]][..., None].astype(float), 1, boxes[k], 14, 0)[..., 0]
        clear = np.abs(share - 0.5) > 1e-4  # a share of exactly one half may fall either way
        assert clear.mean() > 0.8
        np.testing.assert_array_equal(np.asarray(got[k])[clear], share[clear] > 0.5)


def test_half_covered_counts_as_object():
    masks = np.zeros((1, 8, 8), np.uint8)
    masks[0, :, :3] = 1
    box = np.array([[0, 0, 8, 8]], np.float32)  # bins of 2 × 2: the second column is half covered
    got = run(np.packbits(masks, axis=-1), box, np.array([0]), 4)
    assert got[0, 0].tolist() == [1, 1, 0, 0]


def test_resize_is_opencvs_to_the_bit():
    rng = np.random.default_rng(2)
    height, width = 96, 160
    y, x = np.mgrid[:height, :width]
    masks = np.stack([rng.random((height, width)) < 0.5, (y - 40) ** 2 + (x - 70) ** 2 < 900, x > 80])
    masks = masks.astype(np.uint8)
    corners = np.sort(rng.uniform(0, 1, (90, 2, 2)) * [width - 1, height - 1], axis=1)
    boxes = corners.reshape(-1, 4).astype(np.float32)
    boxes[:4] = [[3, 5, 3, 90], [0, 0, 159, 95], [10.9, 7.2, 37.9, 34.2], [20, 20, 75, 75]]
    index = rng.integers(3, size=len(boxes))
    index[:4] = 0
    got = jax.jit(resize_masks, static_argnums=3)(
        np.packbits(masks, -1), np.add(boxes, [0, 0, 1, 1]), index, 28
    )
    for k, box in enumerate(boxes):
        x1, y1, x2, y2 = box.astype(int)
        crop = masks[index[k], y1 : y2 + 1, x1 : x2 + 1]
        np.testing.assert_array_equal(got[k], cv2.resize(crop, (28, 28), interpolation=cv2.INTER_LINEAR))


def test_crop_gives_mmdet_targets(goldens):
    height, width = (int(side) for side in goldens["pad_shape"][:2])
    masks = goldens["gt_masks_packed"].reshape(-1, *goldens["gt_masks_shape"][1:-1], width // 8)
    masks = np.pad(masks, [(0, 0), (0, height - masks.shape[1]), (0, 0)])
    wanted = np.unpackbits(goldens["mask_targets_packed"], axis=1).reshape(-1, 28, 28)
    for chunk in (1, 5):  # as on a CPU, and as on accelerators; the last chunk is not full
        got = run(masks, goldens["roi_pos_bboxes"], goldens["roi_pos_assigned_gt_inds"], 28, chunk)
        np.testing.assert_array_equal(got, wanted)
    assert len(wanted) % 5
