"""What a checkpoint says of itself: its config, its categories and its step, as JSON beside its arrays."""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict, FrozenConfigDict

from masktrack_jax.config.base import base_config, validate_model
from masktrack_jax.runtime.errors import UserError


class About(NamedTuple):
    """What a checkpoint says of itself."""

    config: ConfigDict
    categories: list  # of (id, name), in the order of the labels
    step: int


def describe(config, categories, step):
    """What a checkpoint says of itself, for JSON."""
    return {"config": json.loads(config.to_json()), "categories": [list(c) for c in categories], "step": step}


def find_step_folder(path):
    """The step folder that `path` is, holds, or holds in `checkpoints/`: of several the newest."""
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such checkpoint folder; give a training folder or one of its steps")
    for folder in (path, path / "checkpoints"):
        if (folder / "about").is_dir():
            return folder
        steps = [p for p in folder.glob("*") if p.name.isdigit() and (p / "about").is_dir()]
        if steps:
            return max(steps, key=lambda p: int(p.name))
    raise UserError(f"{path}: holds no checkpoint; give a training folder or one of its steps")


def read_about(path):
    """`About` of the checkpoint at `path`."""
    file = find_step_folder(path) / "about" / "metadata"
    try:
        return parse_about(json.loads(file.read_text()))
    except (OSError, *UNSOUND) as error:
        reason = first_line(error)
        raise UserError(f"{file}: cannot be read as a checkpoint's description ({reason})") from None


def fingerprint(path):
    """The digest of what inference reads of the checkpoint at `path`: the same network has the same."""
    folder, digest = find_step_folder(path), hashlib.sha256()
    files = [file for name in ("about", "variables") for file in sorted((folder / name).rglob("*"))]
    for file in filter(Path.is_file, files):
        with open(file, "rb") as opened:
            content = hashlib.file_digest(opened, "sha256").hexdigest()
        digest.update(f"{file.relative_to(folder)} {content}\n".encode())
    return digest.hexdigest()


def read_pending(folder):
    """The metrics that were pending when a step folder was written."""
    return json.loads((folder / "about" / "metadata").read_text()).get("pending", [])


def read_scores(folder):
    """{name: number} of a checkpoint's parameters; empty where none were written or can be read."""
    try:
        scores = json.loads((folder / "about" / "metadata").read_text())["scores"]
        return {str(name): float(value) for name, value in scores.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


UNSOUND = (ValueError, KeyError, TypeError, RecursionError, OverflowError, UserError)


def parse_about(values):
    """`About` of what `describe` gave. Raises one of `UNSOUND` where that is not whole."""
    categories = [(int(i), str(name)) for i, name in values["categories"]]
    missing = set(base_config()) - set(values["config"])
    if missing:
        raise KeyError(min(missing))
    config = ConfigDict(_completed(_renamed(values["config"]), base_config()))
    validate_model(FrozenConfigDict(config).model)  # frozen, it refuses what a network cannot be made of
    return About(config, categories, int(values["step"]))


def _renamed(values):
    """`values` of a config, with what older ones have under another name at its place of today."""
    train = dict(values["train"])
    if "match_over" in train:
        train["track"] = {"softmax": {"over": train.pop("match_over")}}
    return values | {"train": train}


def _completed(values, defaults):
    """`values` with what `defaults` has besides: what a config of today says more than an older one."""
    filled = dict(values)
    for key, default in defaults.items():
        if key not in values:
            filled[key] = default
        elif isinstance(default, ConfigDict):
            filled[key] = _completed(values[key], default)
        elif not _alike(values[key], default):
            raise TypeError(f"{key} cannot be {values[key]!r:.40}")
    return filled


def _alike(value, default):
    """Whether a value of JSON is of the kind of a config's default."""
    if isinstance(default, tuple):
        return isinstance(value, list) and all(_alike(x, default[0]) for x in value if default)
    kinds = (int, float) if isinstance(default, float) else type(default)
    return isinstance(value, kinds) and isinstance(value, bool) == isinstance(default, bool)


def first_line(error):
    """The first line of an error, cut where it is long."""
    return str(error).strip().split("\n")[0][:200]
