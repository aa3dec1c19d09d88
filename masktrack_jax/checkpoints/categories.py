"""Categories of two data sets: which are the same, and how what was learnt of them is carried over.

The parameters of a class lie on the last axis of a few arrays (`PER_CLASS`); all others do not know classes.
"""

import re

import numpy as np

# Other words for the same thing, or nearly: a first guess that training improves.
ALIASES = {
    "aeroplane": "airplane",
    "flying disc": "frisbee",
    "motorbike": "motorcycle",
    "sedan": "car",
}

# How the names of class-dependent parameters begin: numbers a class. Class logits have the background last.
PER_CLASS = {"params/box_head/logits/": 1, "params/box_head/deltas/": 4, "params/mask_head/logits_": 1}
WITH_BACKGROUND = "params/box_head/logits/"


def plain_names(names):
    """The names in lower case with single blanks, and told apart where lists mean different things."""
    words = [" ".join(re.split(r"[\s_-]+", name.lower().strip())) for name in names]
    if "keyboard" in words:  # COCO's mouse is the computer's, YouTube-VIS's is the animal
        words = ["computer mouse" if word == "mouse" else word for word in words]
    return words


def match_categories(wanted, there):
    """For each name of `wanted` the place of that category among the names `there`, or None.

    The same name goes before an alias of it.
    """
    places, by_alias = {}, {}
    for place, word in enumerate(plain_names(there)):
        places.setdefault(word, place)
        by_alias.setdefault(ALIASES.get(word, word), place)
    return [places.get(word, by_alias.get(ALIASES.get(word, word))) for word in plain_names(wanted)]


def class_shape(name, shape, classes):
    """`shape` of the parameter `name` in a network of so many classes: another where it depends on them."""
    for start, numbers in PER_CLASS.items():
        if name.startswith(start):
            return (*shape[:-1], numbers * classes + (start == WITH_BACKGROUND))
    return tuple(shape)


def carry(name, start, there, matches):
    """The parameter `name`: `start` with what the array `there` of another network knows.

    `matches` are of `match_categories`: of classes without one, `start` remains. A parameter that does not
    depend on the classes is `there` itself.
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
