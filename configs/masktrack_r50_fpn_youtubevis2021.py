"""MaskTrack R-CNN R50-FPN on YouTube-VIS 2021 (its label files are named instances.json).

    python train.py --config configs/masktrack_r50_fpn_youtubevis2021.py --workdir runs/r50_2021 \
        --config.train.init_from=CHECKPOINT_OF_COCO_WEIGHTS

Not trained here yet.
"""

from ml_collections import ConfigDict

from configs.masktrack_r50_fpn_youtubevis2019 import get_config as reference_config


def get_config() -> ConfigDict:
    """The reference recipe on YouTube-VIS 2021."""
    config = reference_config()
    config.data.update(
        {
            "name": "youtubevis2021",
        }
    )
    return config
