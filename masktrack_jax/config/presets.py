"""Named sets of config values: the published forms of the network, and the tracking that we recommend."""

from ml_collections import ConfigDict


def mmtracking_form(config):
    """Change `config` to mmtracking's form in the two values where `base_config` differs; returns it."""
    config.data.float_resize = True
    config.inference.association.keep_displaced = True
    return config


def mmdet1_form(config):
    """Change the network of `config` to the form of mmdet before version 2; returns it."""
    config.model.pixel_boxes = True
    config.model.anchors.update({"centre": 0.5, "rounded": True})
    config.model.roi_align.update({"sampling": 2, "aligned": False})
    return config


def torchvision_form(config):
    """Change the network of `config` to the form of torchvision's Mask R-CNN; returns it."""
    config.model.anchors.rounded = True
    config.model.roi_align.update({"sampling": 2, "aligned": False, "min_size": 1.0})
    return config


def original_form(config):
    """Change `config` to the authors' form (github.com/youtubevos/MaskTrackRCNN); returns it.

    What their weights were trained with, and so what they give the published results with.
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


def recommended_tracking(config):
    """Change `config` to what kept identities best in docs/tracking.md's comparison; returns it."""
    config.model.track_head.update({"kind": "conv", "features": 256})
    config.train.track.loss = "contrastive"
    recommended_association(config)
    return config


def recommended_association(config):
    """The part of `recommended_tracking` that needs no training.

    Embeddings that were trained by the paper's softmax are all much alike in direction: `new_threshold` 0.3
    is better for them.
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


# What changes no shape, but what a network's weights were trained for.
FORM = ("pixel_boxes", "backbone.stride_in_1x1", "anchors", "roi_align", "track_head.relu_last")


def form_differences(config, other):
    """(key of `config.model`, its value, its value in `other`) of each value of `FORM` that differs."""

    def value(config, key):
        for part in key.split("."):
            config = config[part]
        if isinstance(config, ConfigDict):
            return {name: value(config, name) for name in sorted(config)}
        return tuple(config) if isinstance(config, list) else config

    pairs = ((key, value(config.model, key), value(other.model, key)) for key in FORM)
    return [(key, ours, theirs) for key, ours, theirs in pairs if ours != theirs]
