"""Match the categories of two data sets by name, and transfer the parameters of each class.

The parameters of a class are slices of the last axis of a few arrays (`PER_CLASS`). The classes share all
other arrays.
"""

import re
import unicodedata
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from masktrack_jax.runtime.errors import printable

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
_SHOWN = 30

Array = Any  # a NumPy or JAX array


def plain_names(names: Sequence[str]) -> list[str]:
    """The names in lower case with single spaces and composed letters; homonyms get different names."""
    composed = [
        unicodedata.normalize("NFKC", name).casefold() for name in names
    ]  # é may be one letter or two
    words = [" ".join(re.split(r"[\s_-]+", name.strip())) for name in composed]
    if "keyboard" in words:  # COCO's mouse is the computer's, YouTube-VIS's is the animal
        words = ["computer mouse" if word == "mouse" else word for word in words]
    return words


def match_categories(wanted: Sequence[str], there: Sequence[str]) -> list[int | None]:
    """For each name in `wanted`, the index of the same category in `there`, or None.

    No two names get the same category. Equal names take precedence over names that differ in spelling alone,
    and these over aliases; among equals, the first goes to the first. So a list matches itself in order.
    """
    matches: list[int | None] = [None] * len(wanted)
    for ours, theirs in zip(_spellings(wanted), _spellings(there)):
        free: dict[tuple[str, ...], list[int]] = {}
        for place in reversed(range(len(there))):
            if place not in matches:
                free.setdefault(theirs[place], []).append(place)
        for label, spelling in enumerate(ours):
            if matches[label] is None and free.get(spelling):
                matches[label] = free[spelling].pop()
    return matches


def _spellings(names: Sequence[str]) -> list[list[tuple[str, ...]]]:
    """The names as they are, then in plain spelling, then with aliases replaced."""
    words = plain_names(names)
    return [list(zip(names, words)), list(zip(words)), [(ALIASES.get(word, word),) for word in words]]


def unmatched(names: Sequence[str], matched: Collection[int | None]) -> str:
    """The names whose index is not in `matched`, and how many they are: "cat, dog (2 of 5)"; "" for none."""
    left = [printable(name) for place, name in enumerate(names) if place not in matched]
    more = ", …" if len(left) > _SHOWN else ""
    return f"{', '.join(left[:_SHOWN])}{more} ({len(left)} of {len(names)})" if left else ""


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
