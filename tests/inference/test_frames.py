"""The order of a frame's detections and the authors' geometry, in cases worked out by hand."""

import numpy as np

from masktrack_jax.inference.frames import detection_order, pixel_boxes_at_frame_size


def test_detections_are_grouped_by_class_unless_cut_in_the_authors_form() -> None:
    scores = np.array([0.5, 0.9, 0.3, 0.8, 0.9, 0.7, 0.99], np.float32)
    labels = np.array([1, 1, 0, 0, 0, 2, 0])
    valid = np.array([True] * 6 + [False])
    assert detection_order(scores, labels, valid, False).tolist() == [4, 3, 2, 1, 0, 5]
    assert detection_order(scores, labels, valid, False, "score").tolist() == [4, 3, 2, 1, 0, 5]
    full = np.ones(7, bool)
    assert detection_order(scores, labels, full, True).tolist() == [6, 4, 3, 2, 1, 0, 5]
    assert detection_order(scores, labels, full, False, "score").tolist() == [6, 4, 3, 2, 1, 0, 5]
    assert detection_order(scores, labels, full, True, "score").tolist() == [6, 1, 4, 3, 5, 0, 2]


def test_the_authors_scale_first_and_last_pixels_by_one_factor() -> None:
    boxes = pixel_boxes_at_frame_size(np.array([[8.0, 4.0, 21.0, 9.0]]), 2.0)
    assert boxes.tolist() == [[4.0, 2.0, 11.0, 5.0]]  # pixels 8…20 and 4…8 over 2, and one more
