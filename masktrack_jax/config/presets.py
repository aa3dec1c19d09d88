"""Named sets of config values: the published forms of the network, and the recommended tracking."""

from typing import Any, NamedTuple

from ml_collections import ConfigDict


def mmtracking_form(config: ConfigDict) -> ConfigDict:
    """Set the two values in which `base_config` differs from mmtracking; returns `config`."""
    config.data.float_resize = True
    config.inference.association.keep_displaced = True
    return config


def mmdet1_form(config: ConfigDict) -> ConfigDict:
    """Change the network of `config` to the form of mmdet before version 2; returns `config`."""
    config.model.pixel_boxes = True
    config.model.anchors.update({"centre": 0.5, "rounded": True})
    config.model.roi_align.update({"sampling": 2, "aligned": False})
    return config


def torchvision_form(config: ConfigDict) -> ConfigDict:
    """Change the network of `config` to the form of torchvision's Mask R-CNN; returns `config`."""
    config.model.anchors.rounded = True
    config.model.roi_align.update({"sampling": 2, "aligned": False, "min_size": 1.0})
    return config


def original_form(config: ConfigDict) -> ConfigDict:
    """Change `config` to the authors' form (github.com/youtubevos/MaskTrackRCNN); returns `config`.

    Their weights were trained in this form and give the published results only in it.
    """
    mmdet1_form(config)
    config.model.track_head.update({"relu_last": False, "init_std": 0.01})
    config.model.detections.update({"score_threshold": 0.05, "max_detections": 10})
    config.data.update({"pixel_boxes": True, "float_resize": False, "max_gap": 0})
    config.train.rpn.update({"inside_only": True, "beta": 1 / 9})
    config.train.roi.beta = 1.0
    config.train.track.softmax.over = "positives"
    config.optimizer.learning_rate = 0.005
    config.inference.order_when_cut = "score"
    config.inference.association.update(
        {"update_label": False, "frames_retained": 0, "keep_displaced": False}
    )
    return config


def recommended_tracking(config: ConfigDict) -> ConfigDict:
    """Change the tracking of `config` to the best method of docs/tracking.md; returns `config`."""
    config.model.track_head.update({"kind": "conv", "features": 256})
    config.train.track.loss = "contrastive"
    recommended_association(config)
    return config


def recommended_association(config: ConfigDict) -> ConfigDict:
    """The part of `recommended_tracking` that needs no training.

    Embeddings trained with the paper's softmax loss have similar directions; use `new_threshold` 0.3 for
    them.
    """
    config.inference.association.update(
        {
            "similarity": "cosine",
            "assignment": "hungarian",
            "second_choice": False,
            "memory": "bank",
            "bank_size": 30,
            "new_threshold": 0.6,
            "iou_weight": 0.2,
            "label_weight": 0.2,
            "duplicate_iou": 0.5,
            "new_score": 0.1,
            "frames_retained": 100,
        }
    )
    config.inference.tracks.update({"label": "vote", "score": "class_mean"})
    return config


# Keys that the weights depend on, although they change no parameter's shape.
FORM = ("pixel_boxes", "backbone.stride_in_1x1", "anchors", "roi_align", "track_head.relu_last")


class Difference(NamedTuple):
    """A key of `config.model` with different values in two configs."""

    key: str
    ours: Any
    theirs: Any


def form_differences(config: ConfigDict, other: ConfigDict) -> list[Difference]:
    """The keys of `FORM` whose values differ."""
    pairs = (Difference(key, _value(config.model, key), _value(other.model, key)) for key in FORM)
    return [pair for pair in pairs if pair.ours != pair.theirs]


def _value(section: ConfigDict, key: str) -> Any:
    """The value at a dotted key; sections as dicts and lists as tuples, since JSON has no tuples."""
    for part in key.split("."):
        section = section[part]
    if isinstance(section, ConfigDict):
        return {name: _value(section, name) for name in sorted(section)}
    return tuple(section) if isinstance(section, list) else section
