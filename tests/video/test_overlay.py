"""The pixels and colours that a drawing changes, and frames of every size."""

import colorsys

import numpy as np
import pytest

from masktrack_jax.masks.rle import decode_masks, encode_masks
from masktrack_jax.video.overlay import draw_tracks, overlay_scale, track_color


def frame_and_tracks(height=240, width=320):
    """A grey frame, and masks and boxes of two tracks."""
    frame = np.full((height, width, 3), 90, np.uint8)
    masks = np.zeros((2, height, width), np.uint8)
    masks[0, 100:140, 60:120] = 1
    masks[1, 160:200, 200:260] = 1
    boxes = np.array([[60, 100, 120, 140], [200, 160, 260, 200]], np.float32)
    return frame, masks, boxes


def test_only_masks_boxes_and_labels_change_the_frame():
    frame, masks, boxes = frame_and_tracks()
    drawn = draw_tracks(frame, masks, boxes, ["cat", "dog"], [3, 8], [0.9, 0.8])
    assert (frame == 90).all(), "the frame given must not change"
    for centre, track_id in (((120, 90), 3), ((180, 230), 8)):
        expected = 0.55 * 90 + 0.45 * np.array(track_color(track_id))
        np.testing.assert_allclose(drawn[centre], expected, atol=1)
    changed = (drawn != frame).any(axis=2)
    assert not changed[:60].any() and not changed[205:].any() and not changed[:, :50].any()
    assert changed[80:98, 62:90].any(), "the label above the first box"


def test_decoded_rles_are_drawn_like_masks():
    frame, masks, boxes = frame_and_tracks()
    arguments = (boxes, ["cat", "dog"], [0, 1], [0.9, 0.8])
    for scale in (1, 3):
        one = draw_tracks(frame, masks, *arguments, scale)
        two = draw_tracks(frame, decode_masks(encode_masks(masks), 240, 320), *arguments, scale)
        assert one.shape == (240 * scale, 320 * scale, 3)
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("masks", [decode_masks([], 20, 30), np.zeros((0, 20, 30), np.uint8)])
def test_frame_without_tracks(masks):
    frame = np.arange(20 * 30 * 3).reshape(20, 30, 3).astype(np.uint8)
    np.testing.assert_array_equal(draw_tracks(frame, masks, np.zeros((0, 4)), [], [], []), frame)


def test_tiny_frames_boxes_at_the_edge_and_empty_masks():
    frame = np.zeros((9, 14, 3), np.uint8)
    boxes = [[-5, -5, 30, 30], [13, 8, 14, 9], [0, 0, 0, 0]]
    masks = np.zeros((3, 9, 14), np.uint8)
    masks[0] = 1
    names = ["a rather long name of a class", "b", "c"]
    assert draw_tracks(frame, masks, boxes, names, [0, 1, 2], [0.5, 0.4, 0.3]).shape == frame.shape
    assert draw_tracks(frame, masks, boxes, names, [0, 1, 2], [0.5, 0.4, 0.3], 20).shape == (180, 280, 3)


def test_colours_are_fixed_and_apart():
    assert track_color(12345) == track_color(12345)
    colours = np.array([track_color(i) for i in range(16)], float)
    distances = np.abs(colours[:, None] - colours[None]).sum(axis=2)[~np.eye(16, dtype=bool)]
    assert distances.min() > 40
    hues = [colorsys.rgb_to_hsv(*(c / 255))[0] for c in colours[:2]]
    assert abs(hues[0] - hues[1]) > 0.3


@pytest.mark.parametrize("size, scale", [((96, 160), 4), ((720, 1280), 1), ((360, 640), 1), ((250, 333), 2)])
def test_overlay_scale(size, scale):
    assert overlay_scale(*size) == scale
