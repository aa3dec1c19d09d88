"""MaskTrack R-CNN R50 without a feature pyramid on YouTube-VIS 2019: all heads use C5 (stride 32).

    python train.py --config configs/single_level_r50_youtubevis2019.py --workdir runs/r50_c5 \
        --config.train.init_from=CHECKPOINT_OF_COCO_OR_IMAGENET_WEIGHTS

From a checkpoint with a pyramid, only the backbone is loaded; the heads start from random weights. Not
trained here yet.
"""

from ml_collections import ConfigDict

from configs.masktrack_r50_fpn_youtubevis2019 import get_config as reference_config


def get_config() -> ConfigDict:
    """The reference recipe with one level, three anchor sizes and the plain track head."""
    config = reference_config()
    config.model.update(
        {
            "neck": "none",
            "anchors": {"strides": (32,), "scale": 1.0, "sizes": (1.0, 2.0, 4.0)},  # 32, 64, 128 pixels
            "proposals": {"pre_nms": 1000},  # as many from one level as from five
            # Two fully connected layers on 7 × 7 × 2048 would have 104 million parameters.
            "track_head": {"kind": "conv", "features": 256},
        }
    )
    return config
