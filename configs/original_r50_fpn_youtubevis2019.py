"""MaskTrack R-CNN R50-FPN on YouTube-VIS 2019, the authors' form and recipe: 12 epochs of 8 pairs a step.

    python train.py --config configs/original_r50_fpn_youtubevis2019.py --workdir runs/original_2019 \
        --config.train.init_from=CHECKPOINT_OF_THEIR_OR_COCO_WEIGHTS

The paper reports 30.3 AP on the validation server. Not trained here yet.
"""

from ml_collections import ConfigDict

from configs.masktrack_r50_fpn_youtubevis2019 import get_config as mmtracking_config
from masktrack_jax.config.presets import original_form


def get_config() -> ConfigDict:
    """mmtracking's config with the values in which the authors differ."""
    return original_form(mmtracking_config())
