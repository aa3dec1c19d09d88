"""Suggestions for unknown config keys."""

import difflib
from collections.abc import Collection

# Names in other projects, and the same keys here.
ALIASES = {
    "batch": "batch_size",
    "bs": "batch_size",
    "epoch": "epochs",
    "num_epochs": "epochs",
    "iterations": "steps",
    "iters": "steps",
    "max_steps": "steps",
    "num_steps": "steps",
    "lr": "learning_rate",
    "base_lr": "learning_rate",
    "wd": "weight_decay",
    "grad_clip": "clip_norm",
    "warmup": "warmup_steps",
    "num_workers": "workers",
    "pretrained": "init_from",
    "resume_from": "init_from",
    "load_from": "init_from",
}


def nearest_key(key: str, known: Collection[str]) -> str | None:
    """The dotted key in `known` that is most similar to `key`, in any section; None if none is similar."""
    section, _, name = key.rpartition(".")
    if name not in _names(known):
        name = ALIASES.get(name, name)
    if name in _names(known):
        same = [other for other in known if other.rpartition(".")[2] == name]
        return max(same, key=lambda other: difflib.SequenceMatcher(None, other, f"{section}.{name}").ratio())
    if close := difflib.get_close_matches(key, known, 1, cutoff=0.85):
        return close[0]
    if close := difflib.get_close_matches(name, _names(known), 1, cutoff=0.75):
        return nearest_key(f"{section}.{close[0]}", known)
    return None


def _names(known: Collection[str]) -> list[str]:
    return sorted({key.rpartition(".")[2] for key in known})
