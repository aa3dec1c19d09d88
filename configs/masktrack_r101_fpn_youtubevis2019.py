"""MaskTrack R-CNN R101-FPN on YouTube-VIS 2019: the R50 recipe with a deeper backbone.

    python train.py --config configs/masktrack_r101_fpn_youtubevis2019.py --workdir runs/r101_2019 \
        --config.train.init_from=CHECKPOINT_OF_COCO_WEIGHTS

Not trained here yet.
"""

from ml_collections import ConfigDict

from configs.masktrack_r50_fpn_youtubevis2019 import get_config as reference_config


def get_config() -> ConfigDict:
    """The reference recipe with ResNet-101."""
    config = reference_config()
    config.model.backbone.depth = 101
    return config
