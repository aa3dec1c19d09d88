"""The smallest network with all parts, for tests: a step takes a fraction of a second on a CPU.

    python -m masktrack_jax.data.generate --output data/tiny --videos 4 --frames 6 --height 64 --width 96
    python train.py --config configs/tiny.py --workdir runs/tiny

It learns almost nothing; see configs/demo.py for a network that learns.
"""

from ml_collections import ConfigDict

from masktrack_jax.config.base import base_config


def get_config() -> ConfigDict:
    """Frames of 64 × 96 pixels, a ResNet-18 of width 8, a pyramid of 16 channels."""
    config = base_config()
    config.model.update(
        {
            "backbone": {"depth": 18, "width": 8, "norm": "frozen_bn", "frozen_stages": 1},
            "fpn": {"channels": 16},
            "anchors": {"scale": 4.0},
            "rpn_head": {"channels": 16},
            "proposals": {"pre_nms": 32, "post_nms": 24},
            "roi_align": {"finest_scale": 16.0},
            "box_head": {"features": 32},
            "mask_head": {"convs": 1, "channels": 16},
            "track_head": {"features": 16},
            "detections": {"max_detections": 8},
        }
    )
    config.data.update(
        {
            "train_annotations": "data/tiny/instances.json",
            "val_annotations": "data/tiny/instances.json",
            "scales": ((96, 64),),
            "buckets": ((64, 96),),
            "max_objects": 4,
        }
    )
    config.train.update({"batch_size": 4, "steps": 4, "log_every": 2, "checkpoint_every": 2})
    config.train.rpn.update({"samples": 32})
    config.train.roi.update({"samples": 16})
    config.optimizer.update({"learning_rate": 0.02, "warmup_steps": 2})
    config.inference.update({"scale": (96, 64), "frames_per_call": 2})
    return config
