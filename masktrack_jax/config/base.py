"""The configuration every experiment starts from, and its checks."""

from ml_collections import ConfigDict

from masktrack_jax.config.inference import DTYPES, check, inference_config, validate_inference
from masktrack_jax.losses.tracking import LOSSES
from masktrack_jax.models.layers import NORMS
from masktrack_jax.models.resnet import DEPTHS
from masktrack_jax.models.track_head import HEADS
from masktrack_jax.runtime.errors import UserError


def base_config():
    """MaskTrack R-CNN R50-FPN with mmtracking's values; a file in `configs/` says what differs."""
    return ConfigDict(
        {
            "seed": 0,
            "model": model_config(),
            "data": data_config(),
            "train": train_config(),
            "optimizer": optimizer_config(),
            "inference": inference_config(),
        }
    )


LEVELS = {"fpn": 5, "none": 1}  # of each neck: P2 to P6, or C5
PARTS = ("backbone", "fpn", "rpn_head", "box_head", "mask_head", "track_head")


def model_config():
    return {
        "dtype": "float32",  # of the computation; parameters are float32
        # Compute the backbone's activations again for the gradient: less memory (CPUs: docs/performance.md).
        "remat": False,
        "pixel_boxes": False,  # clip boxes, crop and paste masks by whole pixels, as mmdet before version 2
        "backbone": {
            "depth": 50,
            "width": 64,
            "norm": "frozen_bn",
            "frozen_stages": 1,
            "stride_in_1x1": False,
        },
        "neck": "fpn",  # or "none": the backbone's last level alone, with one stride below
        "fpn": {"channels": 256, "norm": "none"},
        "anchors": {
            "strides": (4, 8, 16, 32, 64),
            "scale": 8.0,
            "sizes": (1.0,),  # of a cell: sides are stride · scale · size
            "ratios": (0.5, 1.0, 2.0),
            "centre": 0.0,  # in the cell: 0 its corner, 0.5 its middle
            "rounded": False,
        },
        "rpn_head": {"channels": 256},
        "proposals": {"pre_nms": 200, "post_nms": 200, "nms_iou": 0.7},
        "roi_align": {"finest_scale": 56.0, "sampling": 0, "aligned": True, "min_size": 0.0},
        "box_head": {"features": 1024, "convs": 0, "norm": "none"},
        "mask_head": {"convs": 4, "channels": 256, "norm": "none"},
        # The kinds are in models/track_head.py; the last two values are of "fc" only.
        "track_head": {"kind": "fc", "features": 1024, "relu_last": True, "init_std": 0.0},
        "detections": {"score_threshold": 0.01, "nms_iou": 0.5, "max_detections": 100},
    }


def data_config():
    return {
        # Where data sets lie: a folder with one or several, in any usual layout (data.layouts) or packed
        # (data.pack). Annotations files named below go before what is found there.
        "root": "",
        "name": "",  # which of several: youtubevis2019, …2021, …2022, ovis, or its folder's name
        "val_split": "valid",  # what is evaluated: or "test", or "" for nothing
        # Training videos that are evaluated in place of it and not trained on: "tenth", by the checksum of
        # their names, or a file with a name or id a line (data.splits).
        "holdout": "",
        "train_annotations": "",
        "train_frames": "",
        "val_annotations": "",
        "val_frames": "",
        "scales": ((640, 360),),  # (long edge, short edge) in pixels; training draws one for each pair
        "buckets": (
            # Padded heights and widths, multiples of 32. A frame in a larger one than it needs sees other
            # borders than in the published code: the common shapes have their own.
            (384, 640),
            (384, 480),
            (384, 384),
            (480, 384),
            (640, 384),
        ),
        "pixel_boxes": False,  # scale and clip boxes by their first and last pixel
        "float_resize": False,  # resize as float32, as mmtracking trains; four times the data to move
        "flip": 0.5,
        "jitter": 0.0,
        "max_objects": 20,
        "max_gap": 100,  # frames between key and reference at most; 0: any other frame
        "workers": 0,
        "both_ways": False,  # each frame of a pair is key and reference in turn
        "cache_mb": 0,
        "on_error": "stop",  # at a frame that cannot be read; or "skip": its pair is counted and replaced
    }


def train_config():
    return {
        "batch_size": 8,  # pairs, over all devices
        "accumulate": 1,  # micro-batches of a device's part of the batch: less memory, the same step
        "epochs": 12.0,
        "steps": 0,  # instead of epochs, where positive
        "loss_weights": {
            "rpn_cls": 1.0,
            "rpn_box": 1.0,
            "cls": 1.0,
            "box": 1.0,
            "mask": 1.0,
            "match": 1.0,  # of the tracking loss, besides its own
            "match_cosine": 1.0,
        },
        "rpn": {
            "samples": 64,
            "positive_fraction": 0.5,
            "positive_iou": 0.7,
            "negative_iou": 0.3,
            "min_positive_iou": 0.3,
            "inside_only": False,  # no anchor that reaches out of the image
            "beta": 0.0,  # of the smooth L1 box loss; 0 is L1
        },
        "roi": {
            "samples": 128,
            "positive_fraction": 0.25,
            "positive_iou": 0.5,
            "negative_iou": 0.5,
            "min_positive_iou": 0.5,
            "beta": 0.0,
        },
        "track": track_loss_config(),
        "only": "",  # parts of the network that learn, as "track_head" or "box_head,track_head"; "" is all
        "checkpoint_every": 1000,
        "log_every": 50,
        "on_nan": "stop",  # at a loss or gradient that is not finite; or "skip": the step changes nothing
        "keep_last": 2,  # checkpoints
        "evaluate_every": 0,  # steps, on the validation split; 0: only once the training is done
        "keep_best": True,  # with evaluate_every: the parameters of the highest AP, in WORKDIR/best
        "init_from": "",  # a checkpoint whose parameters to start from
    }


def track_loss_config():
    """The tracking losses with their published values; see losses/tracking.py."""
    return {
        "loss": "softmax",
        # References: "objects" of the reference frame, or "rois" drawn in both frames (training/track.py).
        "softmax": {
            "references": "objects",
            "over": "matched",  # what an image's loss is divided by; or "positives", see `match_loss`
        },
        "triplet": {"references": "objects", "margin": 0.3, "soft": False, "unit_length": False},
        "contrastive": {"references": "objects", "margin": 1.0, "unit_length": False},
        "quasi_dense": {
            "references": "rois",
            "weight": 0.25,
            "cosine_margin": 0.1,
            "negatives_per_positive": 3,
        },
        "roi": {
            "samples": 256,
            "positive_fraction": 0.5,
            "positive_iou": 0.7,
            "negative_iou": 0.3,
            "min_positive_iou": 0.7,
        },
    }


def optimizer_config():
    return {
        "name": "sgd",
        "learning_rate": 0.00125,  # for 8 pairs a step
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "clip_norm": 35.0,
        "schedule": "steps",
        "decay_at": (8 / 12, 11 / 12),
        "decay_factor": 0.1,
        "warmup_steps": 500,
        "warmup_factor": 1 / 3,
    }


def validate(config):
    """`config` itself, once its values fit together; raises a UserError naming the key otherwise."""
    try:
        model, train = config.model, config.train
    except OSError as error:  # of config_flags: it tells of a file that it could not load at first use
        problem = str(error).rsplit("] ", 1)[-1]
        raise UserError(f"{' '.join(problem.split())}; check --config") from None

    validate_model(model)
    choices = {
        "train.track.loss": (train.track.loss, sorted(LOSSES)),
        "train.track.softmax.references": (train.track.softmax.references, ("objects",)),
        "train.track.softmax.over": (train.track.softmax.over, ("matched", "positives")),
        "data.on_error": (config.data.on_error, ("stop", "skip")),
        "train.on_nan": (train.on_nan, ("stop", "skip")),
    }
    for key, (value, known) in choices.items():
        check(value in known, key, f"use one of {known}")
    named = config.data.root or config.data.train_annotations
    check(named, "data.train_annotations", "name the training annotations file, or data.root")
    check(config.data.val_split in ("valid", "test", ""), "data.val_split", "use 'valid', 'test' or ''")
    check(model.neck != "none" or "fpn" not in train.only.split(","), "train.only", "there is no fpn")
    validate_training(train)
    validate_inference(config.inference)
    return config


def validate_model(model):
    """The checks of the `model` section."""
    check(model.dtype in DTYPES[:2], "model.dtype", f"use one of {DTYPES[:2]}")
    check(model.backbone.depth in DEPTHS, "model.backbone.depth", f"use one of {sorted(DEPTHS)}")
    check(0 <= model.backbone.frozen_stages <= 4, "model.backbone.frozen_stages", "use 0 to 4")
    check(model.backbone.norm in NORMS, "model.backbone.norm", f"use one of {sorted(NORMS)}")
    norms = ("none", *NORMS)
    for part in ("fpn", "box_head", "mask_head"):
        check(model[part].norm in norms, f"model.{part}.norm", f"use one of {norms}")
    for part, width in (("backbone", "width"), ("fpn", "channels"), ("mask_head", "channels")):
        # Group norm has groups of 8 channels, and 32 groups from 256 channels on.
        good = model[part][width] % (8 if model[part][width] <= 256 else 32) == 0
        check(good, f"model.{part}.{width}", "use a multiple of 8, above 256 of 32")
    check(model.track_head.kind in HEADS, "model.track_head.kind", f"use one of {sorted(HEADS)}")
    check(model.neck in LEVELS, "model.neck", f"use one of {sorted(LEVELS)}")
    check(len(model.anchors.sizes) > 0, "model.anchors.sizes", "give at least one")
    check(model.track_head.features > 0, "model.track_head.features", "must be positive")
    levels = LEVELS[model.neck]
    check(len(model.anchors.strides) == levels, "model.anchors.strides", f"give {levels}, one for each level")


def validate_training(train):
    """The checks of the `train` section."""
    check(train.batch_size > 0, "train.batch_size", "must be positive")
    check(train.steps > 0 or train.epochs > 0, "train.epochs", "give a positive number, or train.steps")
    for key in ("accumulate", "log_every", "checkpoint_every", "keep_last"):
        check(train[key] > 0, f"train.{key}", "must be positive")
    check(train.evaluate_every >= 0, "train.evaluate_every", "must not be negative")
    for part, drawn in (("rpn", train.rpn), ("roi", train.roi), ("track.roi", train.track.roi)):
        quota = drawn.samples * drawn.positive_fraction
        check(quota >= 1, f"train.{part}.positive_fraction", "leaves no place for a positive")
    for name in LOSSES:
        key = f"train.track.{name}.references"
        check(train.track[name].references in ("objects", "rois"), key, "use 'objects' or 'rois'")
    for name in ("triplet", "contrastive"):
        check(train.track[name].margin >= 0, f"train.track.{name}.margin", "must not be negative")
    unknown = set(train.only.split(",")) - set(PARTS) if train.only else ()
    check(not unknown, "train.only", f"use parts of the network, with commas between: {', '.join(PARTS)}")
