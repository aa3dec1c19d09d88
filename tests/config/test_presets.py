"""The published forms of the network, against the values in the authors' and mmtracking's code."""

from masktrack_jax.config.base import base_config
from masktrack_jax.config.presets import form_differences, mmtracking_form, original_form
from masktrack_jax.training.start import _leaves


def test_the_authors_form_is_their_published_values():
    """github.com/youtubevos/MaskTrackRCNN, configs/masktrack_rcnn_r50_fpn_1x_youtubevos.py and its code."""
    config = original_form(mmtracking_form(base_config()))
    wanted = {
        "model.pixel_boxes": True,
        "model.anchors.centre": 0.5,
        "model.anchors.rounded": True,
        "model.roi_align.sampling": 2,
        "model.roi_align.aligned": False,
        "model.roi_align.min_size": 0.0,
        "model.track_head.relu_last": False,
        "model.track_head.init_std": 0.01,
        "model.detections.score_threshold": 0.05,
        "model.detections.max_detections": 10,
        "data.pixel_boxes": True,
        "data.float_resize": False,
        "data.max_gap": 0,
        "train.rpn.inside_only": True,
        "train.rpn.beta": 1 / 9,
        "train.roi.beta": 1.0,
        "train.track.softmax.over": "positives",
        "optimizer.learning_rate": 0.005,
        "inference.order_when_cut": "score",
        "inference.association.update_label": False,
        "inference.association.frames_retained": 0,
        "inference.association.keep_displaced": False,
    }
    values = dict(_leaves(config))
    assert {key: values[key] for key in wanted} == wanted
    base = dict(_leaves(base_config()))
    others = {key for key in values if values[key] != base[key]}
    assert others <= set(wanted), "something else was changed"
    assert set(dict(_leaves(mmtracking_form(base_config()))).items()) ^ set(base.items()) == {
        ("data.float_resize", True),
        ("data.float_resize", False),
        ("inference.association.keep_displaced", True),
        ("inference.association.keep_displaced", False),
    }


def test_form_differences_are_named():
    config, other = base_config(), base_config()
    assert form_differences(config, other) == []
    other.model.anchors.strides = [4, 8, 16, 32, 64]  # as JSON gives it back
    other.model.detections.max_detections = 3  # no matter of form
    assert form_differences(config, other) == []
    other.model.backbone.stride_in_1x1 = True
    other.model.roi_align.sampling = 2
    found = form_differences(config, other)
    assert [key for key, _, _ in found] == ["backbone.stride_in_1x1", "roi_align"]
    assert found[0][1:] == (False, True)
