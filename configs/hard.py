"""Train on generated videos in which identities are hard to keep, from the packaged checkpoint.

    python -m masktrack_jax.data.generate --preset hard --output data/hard/train --videos 200 --seed 21
    python -m masktrack_jax.data.generate --preset hard --output data/hard/val --videos 40 --seed 22
    python train.py --config configs/hard.py --workdir runs/hard

`benchmarks/tracking.py` compares track heads, losses and association rules on this data.
"""

from pathlib import Path

from ml_collections import ConfigDict

import masktrack_jax
from configs.generated import get_config as generated_config


def get_config() -> ConfigDict:
    """The network of `generated`, fine-tuned on crowds and walls."""
    config = generated_config()
    config.data.root = "data/hard"
    config.train.update(
        {
            "init_from": str(Path(masktrack_jax.__file__).parent / "pretrained" / "generated"),
            "steps": 1500,
            "log_every": 50,
            "checkpoint_every": 500,
        }
    )
    config.optimizer.learning_rate = 3e-4
    return config
