"""Match the categories of two data sets by name, and transfer the parameters of each class.

The parameters of a class are slices of the last axis of a few arrays (`PER_CLASS`). The classes share all
other arrays.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

# Synonyms and near-synonyms; training adapts the transferred parameters.
ALIASES = {
    "aeroplane": "airplane",
    "flying disc": "frisbee",
    "motorbike": "motorcycle",
    "sedan": "car",
}

# Prefix of a parameter's name: number of values per class. The class logits have the background last.
PER_CLASS = {"params/box_head/logits/": 1, "params/box_head/deltas/": 4, "params/mask_head/logits_": 1}
WITH_BACKGROUND = "params/box_head/logits/"


Array = Any  # a NumPy or JAX array


def plain_names(names: Sequence[str]) -> list[str]:
    """The names in lower case with single spaces; homonyms get different names."""
    words = [" ".join(re.split(r"[\s_-]+", name.lower().strip())) for name in names]
    if "keyboard" in words:  # COCO's mouse is the computer's, YouTube-VIS's is the animal
        words = ["computer mouse" if word == "mouse" else word for word in words]
    return words


def match_categories(wanted: Sequence[str], there: Sequence[str]) -> list[int | None]:
    """For each name in `wanted`, the index of the same category in `there`, or None.

    An equal name takes precedence over an alias.
    """
    places: dict[str, int] = {}
    by_alias: dict[str, int] = {}
    for place, word in enumerate(plain_names(there)):
        places.setdefault(word, place)
        by_alias.setdefault(ALIASES.get(word, word), place)
    return [places.get(word, by_alias.get(ALIASES.get(word, word))) for word in plain_names(wanted)]


def class_shape(name: str, shape: Sequence[int], classes: int) -> tuple[int, ...]:
    """The shape of the parameter `name` in a network with `classes` classes, given any network's `shape`."""
    for start, numbers in PER_CLASS.items():
        if name.startswith(start):
            return (*shape[:-1], numbers * classes + (start == WITH_BACKGROUND))
    return tuple(shape)


def carry(name: str, start: Array, there: Array, matches: Sequence[int | None]) -> Array:
    """The parameter `name` with the values of another network's parameter `there`.

    Classes without a match (`match_categories`) keep the values of `start`. A parameter that does not depend
    on the classes is `there` itself.
    """
    for prefix, numbers in PER_CLASS.items():
        if name.startswith(prefix):
            out, there = np.array(start), np.asarray(there)
            for label, place in enumerate(matches):
                if place is not None:
                    ours = slice(numbers * label, numbers * (label + 1))
                    out[..., ours] = there[..., numbers * place : numbers * (place + 1)]
            if prefix == WITH_BACKGROUND:
                out[..., -1] = there[..., -1]
            return out
    return there
