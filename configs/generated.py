"""Generated videos, six categories, the demo's network trained longer: hours on a CPU, minutes on a GPU.

    python -m masktrack_jax.data.generate --output data/generated/train --videos 2000 --seed 11 \
        --max-objects 6
    python -m masktrack_jax.data.generate --output data/generated/val --videos 60 --seed 12
    python train.py --config configs/generated.py --workdir runs/generated

Not trained to the end yet.
"""

from configs.demo import get_config as demo_config


def get_config():
    """The demo's network and recipe, more of both videos and steps."""
    config = demo_config()
    config.data.update(
        {
            "root": "data/generated",
            "cache_mb": 2048,
            "jitter": 0.1,
        }
    )
    config.train.update({"steps": 15000, "log_every": 100, "checkpoint_every": 1000})
    return config
