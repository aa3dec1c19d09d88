"""The flags of evaluate.py: each combination is obeyed or refused."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from masktrack_jax.runtime.copies import is_dir
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import check_replaceable, is_same_file
from masktrack_jax.runtime.remote import is_url

# Keys of the config that --annotations replaces.
OF_SPLIT = tuple(
    f"data.{name}" for name in ("root", "name", "val_split", "holdout", "val_annotations", "val_frames")
)
OF_TRAINING = ("train.", "optimizer.")  # sections of the config that training alone reads


def check_flags(given: Mapping[str, Any], changed: Collection[str] = ()) -> None:
    """Raise a UserError for flags that are missing, or have no effect beside the others.

    Args:
      given: values of the flags by name; None or False if they are not given.
      changed: the dotted keys of the config that flags change.
    """
    if empty := next((name for name, value in given.items() if value == ""), None):
        raise UserError(f"--{empty}: is empty; give a path, or leave it out")
    checkpoint, annotations, results = (given[name] for name in ("checkpoint", "annotations", "results"))
    if results and checkpoint:
        raise UserError("--results is scored as it is and --checkpoint segments anew; leave one of them out")
    if results and given["config"]:
        raise UserError("--config has no effect on the score of --results; leave it out")
    if results and not annotations:
        raise UserError("--results needs --annotations, the labels to score on")
    if checkpoint and not given["config"]:
        raise UserError("--checkpoint needs --config, a file of configs/")
    if not checkpoint and not results:
        raise UserError("give --config and --checkpoint, or --annotations and --results")
    if annotations and (keys := [key for key in changed if key in OF_SPLIT]):
        raise UserError(f"config.{keys[0]} has no effect beside --annotations; leave one of them out")
    if unread := next((key for key in changed if key.startswith(OF_TRAINING)), None):
        raise UserError(f"config.{unread} has no effect on the score of a checkpoint; leave it out")
    if given["frames"] and not (given["diagnose"] or (checkpoint and annotations)):
        raise UserError("--frames is for the pictures of --diagnose only; add --diagnose, or leave it out")
    if given["frames"] and not is_dir(given["frames"]):
        raise UserError(f"{given['frames']}: no such folder; check --frames")
    _check_output(Path(given["output"]), given)


def _check_output(output: Path, given: Mapping[str, Any]) -> None:
    """Raise a UserError if the metrics would replace an input, or another file of the output."""
    check_replaceable(output)
    for name in ("annotations", "results"):
        same = given[name] == given["output"] and is_url(given[name])
        if given[name] and (same or is_same_file(output, given[name])):
            raise UserError(f"{output}: --output would replace --{name}; give another --output")
    others = ["diagnosis.html"] * bool(given["diagnose"])
    others += ["results.json", "labels.json"] * bool(given["checkpoint"])
    if output.name in others:
        raise UserError(f"{output}: {output.name} is written beside --output; give it another name")
