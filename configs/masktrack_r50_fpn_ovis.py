"""MaskTrack R-CNN R50-FPN on OVIS: heavy occlusion, up to dozens of objects per frame.

    python train.py --config configs/masktrack_r50_fpn_ovis.py --workdir runs/r50_ovis \
        --config.train.init_from=CHECKPOINT_OF_COCO_WEIGHTS

Not trained here yet.
"""

from ml_collections import ConfigDict

from configs.masktrack_r50_fpn_youtubevis2019 import get_config as reference_config


def get_config() -> ConfigDict:
    """The reference recipe on OVIS."""
    config = reference_config()
    config.data.update(
        {
            "name": "ovis",
            "max_objects": 40,
        }
    )
    return config
