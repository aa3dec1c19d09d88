"""MaskTrack R-CNN R50-FPN on YouTube-VIS 2019: mmtracking's recipe, 12 epochs with 8 pairs per step.

    python train.py --config configs/masktrack_r50_fpn_youtubevis2019.py --workdir runs/r50_2019 \
        --config.train.init_from=CHECKPOINT_OF_COCO_WEIGHTS

The published implementations reach 30.2–30.3 AP on the validation server, from COCO Mask R-CNN weights.
Not trained here yet. Without `init_from` the network starts from random weights. It then learns little with
frozen batch norm and a frozen first stage: also set model.backbone.norm="group" and frozen_stages=0.
"""

from ml_collections import ConfigDict

from masktrack_jax.config.base import base_config


def get_config() -> ConfigDict:
    """The base config is the reference recipe; this adds only the location of the data."""
    config = base_config()
    config.data.update(
        {
            "root": "data",
            "name": "youtubevis2019",
            "workers": 8,
        }
    )
    return config
