"""A writer of compressed RLE strings, independent of pycocotools."""

import numpy as np
from pycocotools import mask as coco_mask


def write_numbers(numbers):
    """Whole numbers as characters: five bits each, from the lowest, until the rest is the sign's."""
    text = ""
    for number in numbers:
        while True:
            low, number = number & 31, number >> 5
            done = number == (-1 if low & 16 else 0)
            text += chr(48 + low + (0 if done else 32))
            if done:
                break
    return text


def string_of(lengths):
    """Run lengths as a compressed string: from the fourth on, less the length two before."""
    return write_numbers([n - (lengths[i - 2] if i > 2 else 0) for i, n in enumerate(lengths)])


def pixels_of(lengths):
    return np.repeat(np.arange(len(lengths)) % 2, lengths)


def random_lengths(rng):
    """Runs of 300 pixels or so, from one run to every pixel its own, some of them empty."""
    longest = int(rng.choice([1, 3, 40, 4000]))
    lengths = rng.integers(0 if rng.random() < 0.5 else 1, longest + 1, rng.integers(1, 40)).tolist()
    return [0, *lengths] if rng.random() < 0.2 else lengths


def rle(mask):
    """The compressed RLE of a mask by pycocotools."""
    found = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(mask.shape), "counts": found["counts"].decode()}
