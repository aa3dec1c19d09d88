"""Score a checkpoint on the validation split of a config."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from masktrack_jax.checkpoints import store
from masktrack_jax.checkpoints.metadata import read_metadata
from masktrack_jax.config.base import validate
from masktrack_jax.config.presets import form_differences
from masktrack_jax.inference.split import evaluate_split, open_split
from masktrack_jax.models.masktrack_rcnn import build_model
from masktrack_jax.runtime.errors import UserError


def evaluate_checkpoint(
    config: ConfigDict,
    checkpoint: str | Path,
    output: str | Path,
    *,
    diagnosed: bool = False,
    frames_root: str | Path | None = None,
) -> dict[str, Any] | None:
    """Segment the validation split of `config` with the network at `checkpoint`, and score the tracks.

    See `evaluate_split` for the files and metrics. Raises a UserError if the config names no validation
    split, or if the checkpoint was trained in another form of the network.
    """
    metadata = read_metadata(checkpoint)
    for key, ours, theirs in form_differences(validate(config), metadata.config):
        raise UserError(
            f"{checkpoint}: has config.model.{key}={theirs}, not {ours}; give a --config with that value"
        )
    dataset = open_split(config, metadata.categories)
    if dataset is None:
        raise UserError(
            "config.data: names no videos to evaluate; set val_annotations, or root and val_split"
        )
    model = build_model(config, len(metadata.categories))
    variables = store.load_variables(checkpoint, model)
    return evaluate_split(
        config,
        dataset,
        metadata.categories,
        variables,
        output,
        diagnosed=diagnosed,
        frames_root=frames_root,
    )
