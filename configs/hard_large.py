"""The videos of `hard` at 360 × 640 pixels, for a GPU: R50-FPN from scratch. Not trained here yet.

    python -m masktrack_jax.data.generate --preset hard-large --seed 21 --videos 2000 \
        --output data/hard-large/train
    python -m masktrack_jax.data.generate --preset hard-large --seed 22 --videos 100 \
        --output data/hard-large/val
    python train.py --config configs/hard_large.py --workdir runs/hard-large
"""

from ml_collections import ConfigDict

from masktrack_jax.config.base import base_config


def get_config() -> ConfigDict:
    """The reference network with group norm and no frozen stage."""
    config = base_config()
    config.model.backbone.update({"norm": "group", "frozen_stages": 0})
    for part in ("fpn", "mask_head"):
        config.model[part].norm = "group"
    config.data.update({"root": "data/hard-large", "buckets": ((384, 640),), "workers": 8, "both_ways": True})
    config.train.update({"batch_size": 8, "steps": 30000})
    config.optimizer.update(
        {"name": "adamw", "learning_rate": 4e-4, "weight_decay": 0.05, "schedule": "cosine"}
    )
    return config
