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
from masktrack_jax.runtime.processes import devices_text


def evaluate_checkpoint(
    config: ConfigDict,
    checkpoint: str | Path,
    output: str | Path,
    *,
    annotations: str | Path | None = None,
    diagnosed: bool = False,
    frames_root: str | Path | None = None,
) -> dict[str, Any] | None:
    """Segment a split with the network at `checkpoint`, and score the tracks.

    The split is the file `annotations` with the frames below `frames_root`, or else the validation split of
    `config`. See `evaluate_split` for the files and metrics. Raises a UserError if the config names no
    validation split, if it has no labels to diagnose on, or if the checkpoint was trained in another form of
    the network.
    """
    metadata = read_metadata(checkpoint)
    for key, ours, theirs in form_differences(validate(config), metadata.config):
        raise UserError(
            f"{checkpoint}: has config.model.{key}={theirs}, not {ours}; give a --config with that value"
        )
    if annotations is not None:
        config = config.copy_and_resolve_references()
        frames = str(frames_root or "")
        config.data.update(holdout="", val_annotations=str(annotations), val_frames=frames)
    dataset = open_split(config, metadata.categories)
    if dataset is None:
        raise UserError(
            "config.data: names no videos to evaluate; give --annotations, or set val_annotations, or root "
            "and val_split"
        )
    if diagnosed and not dataset.labelled:
        raise UserError(f"{dataset.annotations_path}: has no labels to diagnose on; leave --diagnose out")
    print(f"{devices_text()}, {config.model.dtype}")
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
