"""R50-FPN on YouTube-VIS 2019 with the tracking that was best in our comparison (docs/tracking.md).

    python train.py --config configs/recommended_r50_fpn_youtubevis2019.py --workdir runs/recommended \
        --config.train.init_from=CHECKPOINT_OF_COCO_WEIGHTS

The detector is that of masktrack_r50_fpn_youtubevis2019. Not trained here yet.
"""

from ml_collections import ConfigDict

from configs.masktrack_r50_fpn_youtubevis2019 import get_config as reference_config
from masktrack_jax.config.presets import recommended_tracking


def get_config() -> ConfigDict:
    """The reference recipe with the recommended tracking."""
    return recommended_tracking(reference_config())
