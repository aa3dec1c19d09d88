"""MaskTrack R-CNN R50-FPN on YouTube-VIS 2019, in the authors' form and recipe: 12 epochs, 8 pairs per step.

    python train.py --config configs/original_r50_fpn_youtubevis2019.py --workdir runs/original_2019 \
        --config.train.init_from=CHECKPOINT_OF_THEIR_OR_COCO_WEIGHTS

The paper reports 30.3 AP on the validation server. Not trained here yet.
"""

from ml_collections import ConfigDict

from configs.masktrack_r50_fpn_youtubevis2019 import get_config as mmtracking_config
from masktrack_jax.config.presets import original_form


def get_config() -> ConfigDict:
    """mmtracking's recipe with the authors' values."""
    return original_form(mmtracking_config())
