"""MaskTrack R-CNN R101-FPN on OVIS: the R50 recipe with a deeper backbone.

    python train.py --config configs/masktrack_r101_fpn_ovis.py --workdir runs/r101_ovis \
        --config.train.init_from=CHECKPOINT_OF_COCO_WEIGHTS

Not trained here yet.
"""

from ml_collections import ConfigDict

from configs.masktrack_r50_fpn_ovis import get_config as r50_config


def get_config() -> ConfigDict:
    """The R50 recipe with ResNet-101."""
    config = r50_config()
    config.model.backbone.depth = 101
    return config
