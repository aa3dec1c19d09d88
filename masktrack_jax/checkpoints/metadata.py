"""The metadata of a checkpoint: its config, categories and step, stored as JSON beside its arrays."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict, FrozenConfigDict

from masktrack_jax.checkpoints.digests import NAME, check_digests, check_regular, digest
from masktrack_jax.config.base import base_config, validate_model
from masktrack_jax.runtime import copies, remote
from masktrack_jax.runtime.errors import UserError

ITEM = "about"  # the name of the metadata's folder in a step folder
KEY_DATA = "key_data"  # see `has_key_data`
STEP = re.compile("[0-9]+")  # the name of a step folder


class Metadata(NamedTuple):
    """The config of the network, its categories (id, name) in the order of the labels, and its step."""

    config: ConfigDict
    categories: list[tuple[int, str]]
    step: int

    def to_json(self) -> dict[str, Any]:
        """The metadata as plain values; `parse_metadata` is the reverse."""
        return {
            "config": json.loads(self.config.to_json()),
            "categories": [list(category) for category in self.categories],
            "step": self.step,
            "digests": True,  # the files beside these metadata have digests
        }


def find_step_folder(path: str | Path) -> Path:
    """The newest step folder among `path`, its children, and the children of its folder `checkpoints/`.

    For a URL it is a local copy. A step without digests may not be whole there, so one with them is taken.
    """
    path = Path(copies.local(path))
    if copies.is_file(path):
        raise UserError(
            f"{path}: is a file, not a checkpoint folder; convert it with python -m masktrack_jax.interop "
            f"--input {path} --source SOURCE --output FOLDER (docs/weights.md) and give that FOLDER"
        )
    if not copies.is_dir(path):
        raise UserError(f"{path}: no such checkpoint folder; give a training folder or one of its steps")
    for folder in (path, path / "checkpoints"):
        if copies.is_dir(folder / ITEM):
            return copies.fetched_tree(folder, "checkpoint")
        names = copies.names(folder) if copies.is_dir(folder) else []
        steps = [folder / name for name in sorted(filter(STEP.fullmatch, names), key=int)]
        if remote.url_of(folder):
            steps = [p for p in steps if copies.is_file(p / NAME)] or steps
        whole = [p for p in steps if copies.is_dir(p / ITEM)]
        if whole and whole[-1] != steps[-1]:
            raise UserError(
                f"{steps[-1]}: is the newest step but holds no checkpoint; use another copy of it, or give "
                f"{whole[-1]}"
            )
        if whole:
            return copies.fetched_tree(whole[-1], "checkpoint")
    raise UserError(f"{path}: holds no checkpoint; give a training folder or one of its steps")


def read_metadata(path: str | Path) -> Metadata:
    """The metadata of the checkpoint at `path`. Raises a UserError if it is damaged."""
    folder = find_step_folder(path)
    check_digests(folder, [ITEM])
    file = folder / ITEM / "metadata"
    try:
        check_regular(file)
        content = json.loads(file.read_text())
        metadata = parse_metadata(content)
    except (OSError, *UNSOUND) as error:
        reason = first_line(error)
        raise UserError(f"{file}: cannot be read as a checkpoint's metadata ({reason})") from None
    if content.get("digests") and not (folder / NAME).exists():
        raise UserError(f"{folder}: is damaged ({NAME} is missing); use another copy of it")
    if (
        STEP.fullmatch(folder.name)
        and folder.parent.name == "checkpoints"
        and int(folder.name) != metadata.step
    ):
        raise UserError(
            f"{folder}: is damaged (it holds step {metadata.step}, not {folder.name}); use another copy of it"
        )
    return metadata


def fingerprint(path: str | Path) -> str:
    """A digest of the metadata and parameters at `path`: equal networks have equal digests."""
    folder, whole = find_step_folder(path), hashlib.sha256()
    files = [file for name in (ITEM, "variables") for file in sorted((folder / name).rglob("*"))]
    for file in filter(Path.is_file, files):
        whole.update(f"{file.relative_to(folder)} {digest(file)}\n".encode())
    return whole.hexdigest()


def read_pending(folder: Path) -> list[Any]:
    """The metrics of a step folder that had not been written to metrics.jsonl when it was saved."""
    return json.loads((folder / ITEM / "metadata").read_text()).get("pending", [])


def has_key_data(folder: Path) -> bool:
    """Whether a step folder has the data of the random key instead of the key.

    Orbax refuses a key that one of several processes writes alone.
    """
    return json.loads((folder / ITEM / "metadata").read_text()).get(KEY_DATA, False)


def read_scores(folder: Path) -> dict[str, float]:
    """The scores of a checkpoint's parameters; empty if there are none or they cannot be read."""
    try:
        scores = json.loads((folder / ITEM / "metadata").read_text())["scores"]
        return {str(name): float(value) for name, value in scores.items()}
    except (OSError, AttributeError, *UNSOUND):
        return {}


UNSOUND = (ValueError, KeyError, TypeError, RecursionError, OverflowError, UserError)


def parse_metadata(values: Mapping[str, Any]) -> Metadata:
    """The reverse of `Metadata.to_json`, for older versions too. Raises one of `UNSOUND` for bad values."""
    categories = [(int(i), str(name)) for i, name in values["categories"]]
    missing = set(base_config()) - set(values["config"])
    if missing:
        raise KeyError(min(missing))
    config = ConfigDict(_completed(_upgraded(values["config"]), base_config()))
    validate_model(FrozenConfigDict(config).model)  # freezing rejects values no network can be built from
    return Metadata(config, categories, int(values["step"]))


# Keys of older versions, and the constants that replaced them.
REMOVED = {
    "optimizer.decay_factor": 0.1,
    "train.track.softmax.references": "objects",
    "train.track.triplet.references": "objects",
    "train.track.contrastive.references": "objects",
    "train.track.quasi_dense.references": "rois",
}


def _upgraded(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an older config under the names of this version.

    A removed key stays only if its value differs from the constant that replaced it: inference does not read
    it, and the run of the checkpoint cannot be resumed with another value.
    """
    config = deepcopy(dict(values))
    if "match_over" in config["train"]:
        config["train"]["track"] = {"softmax": {"over": config["train"].pop("match_over")}}
    for key, constant in REMOVED.items():
        *sections, name = key.split(".")
        section = _section(config, sections)
        if section.get(name) == constant:
            del section[name]
    return config


def _section(config: dict[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """The section of a config at `path`; empty if the config lacks it."""
    for part in path:
        config = config.get(part, {})
        if not isinstance(config, dict):
            raise TypeError(f"{part} cannot be {config!r:.40}")
    return config


def _completed(values: Mapping[str, Any], defaults: ConfigDict) -> dict[str, Any]:
    """`values` with `defaults` for missing keys, since an older config has fewer keys."""
    filled = dict(values)
    for key, default in defaults.items():
        if key not in values:
            filled[key] = default
        elif isinstance(default, ConfigDict):
            filled[key] = _completed(values[key], default)
        elif not _alike(values[key], default):
            raise TypeError(f"{key} cannot be {values[key]!r:.40}")
    return filled


def _alike(value: object, default: object) -> bool:
    """Whether a value of JSON has the type of a config's default."""
    if isinstance(default, tuple):
        return isinstance(value, list) and all(_alike(x, default[0]) for x in value if default)
    kinds = (int, float) if isinstance(default, float) else type(default)
    return isinstance(value, kinds) and isinstance(value, bool) == isinstance(default, bool)


def first_line(error: Exception) -> str:
    """The first line of an error message, cut to 200 characters."""
    return str(error).strip().split("\n")[0][:200]
