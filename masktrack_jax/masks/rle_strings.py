"""Validate the strings of compressed RLEs and compute their areas, many at once, without pycocotools.

A string is a sequence of integers (COCO's format). Each integer has one character for every five bits, lowest
bits first. Bit 5 of a character means that more characters follow; bit 4 of the last one is the sign. The
integers are the lengths of runs, alternately background and object. From the fourth on, an integer is the
difference to the length two places before. The lengths are therefore cumulative sums along two chains, one of
every second integer; the first integer belongs to neither chain.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Runs of up to this many pixels have differences of up to six characters, the most that pycocotools reads.
MOST_PIXELS = 2**28
_MOST_CHARACTERS = 6
_FIRST_CHARACTER = np.uint8(48)
_MORE, _SIGN, _BITS = 32, 16, 31


class BrokenString(ValueError):
    """The string with index `place` is not an RLE."""

    def __init__(self, place: int | np.integer, reason: str = "counts is not a complete RLE string") -> None:
        super().__init__(reason)
        self.place = int(place)


class Measures(NamedTuple):
    """Sizes of N masks."""

    areas: np.ndarray  # (N,) int64, pixels of the object
    covered: np.ndarray  # (N,) int64, pixels of all runs, to be compared with the frame
    has_empty: np.ndarray  # (N,) bool, whether a run after the first has no pixels, see `without_empty_runs`


def measure(strings: Sequence[str]) -> Measures:
    """Measure the masks of one or more strings.

    Raises BrokenString for an empty string, an invalid character, an incomplete number, and a run length
    below zero or above `MOST_PIXELS`.
    """
    numbers, stops = _read_numbers(*_read_characters(strings))
    starts = np.concatenate([[0], stops[:-1]])
    heads = numbers[starts]
    numbers[starts] = 0
    if heads.min() < 0:
        raise BrokenString(heads.argmin(), "its first run is of negative length")
    chains = []
    for parity in (0, 1):
        # The numbers at even, then at odd places, and the range of each string among them.
        first, last = (starts + 1 - parity) // 2, (stops + 1 - parity) // 2
        runs = _add_up(numbers[parity::2], first, last)
        if runs.view(np.uint32).max() > MOST_PIXELS:  # or negative
            place = np.searchsorted(last, runs.view(np.uint32).argmax(), side="right")
            raise BrokenString(place, "a run is of negative length or longer than any frame")
        chains.append((runs, first, last))
    even, odd = (_sum(*chain) for chain in chains)
    has_empty = np.zeros(len(strings), bool)
    # Each first run leaves one zero in its chain, and each chain ends with one more zero.
    if sum(np.count_nonzero(runs == 0) for runs, _, _ in chains) > len(strings) + 2:
        empty = [_sum(np.append(runs[:-1] == 0, False), *places) for runs, *places in chains]
        has_empty = empty[0] + empty[1] > 1
    return Measures(np.where(starts % 2 == 0, odd, even), even + odd + heads, has_empty)


def without_empty_runs(string: str) -> list[int]:
    """The run lengths of a mask, without empty runs except possibly the first.

    If both masks of a pair have an empty run at the same pixel, pycocotools stops there.
    """
    runs, _ = _read_numbers(*_read_characters([string]))
    runs = runs.astype(np.int64)
    for chain in (runs[1::2], runs[2::2]):
        np.cumsum(chain, out=chain)
    places, times = np.unique(np.cumsum(runs), return_counts=True)
    changes = places[(times % 2 == 1) & (places < runs.sum())]
    return np.diff(changes, prepend=0, append=runs.sum()).tolist()


def _read_characters(strings: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Codes (C,) uint8 from 0 to 63 of all characters, and the end of each string among them (N,)."""
    text = "".join(strings)
    if not text.isascii():
        raise BrokenString(next(n for n, string in enumerate(strings) if not string.isascii()))
    lengths = np.fromiter(map(len, strings), np.int64, len(strings))
    if not lengths.all():
        raise BrokenString(lengths.argmin(), "counts is an empty text, not a complete RLE string")
    stops = np.cumsum(lengths)
    codes = np.frombuffer(text.encode(), np.uint8) - _FIRST_CHARACTER  # characters below wrap around
    if codes.max() > _MORE + _BITS:
        raise BrokenString(np.searchsorted(stops, codes.argmax(), side="right"))
    unfinished = codes[stops - 1] >= _MORE
    if unfinished.any():
        raise BrokenString(unfinished.argmax())
    return codes, stops


def _read_numbers(codes: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All numbers (R,) int32, and the end of each string among them (N,)."""
    followed = codes >= _MORE
    numbers = (codes[~followed] ^ _SIGN).astype(np.int32) - _SIGN
    more = np.flatnonzero(followed)
    stops = stops - np.searchsorted(more, stops)
    if not len(more):
        return numbers, stops
    # Few numbers have more than one character. The first characters of a number are adjacent in `more`.
    owner = more - np.arange(len(more))
    start = np.flatnonzero(np.diff(owner, prepend=-1))
    owner, count = owner[start], np.diff(start, append=len(more))
    if count.max() >= _MOST_CHARACTERS:
        raise BrokenString(np.searchsorted(stops, owner[count.argmax()], side="right"))
    shift = 5 * (np.arange(len(more)) - np.repeat(start, count)).astype(np.int32)
    low = np.add.reduceat((codes[more] & _BITS).astype(np.int32) << shift, start)
    numbers[owner] = (numbers[owner] << 5 * count) + low
    return numbers, stops


def _add_up(differences: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Lengths (R + 1,) int32 of the runs of a chain; string n has the runs first[n] to last[n].

    They are correct modulo 2³², as in pycocotools. The zero at the end stands for the number before the
    first one, and for strings without a number in this chain.
    """
    runs = np.zeros(len(differences) + 1, np.int32)
    runs[:-1] = differences  # summed in place, since NumPy is slow on strided values
    np.cumsum(runs[:-1], out=runs[:-1])
    runs[:-1] -= np.repeat(runs[first - 1], last - first)
    return runs


def _sum(values: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Sums (N,) int64 of values[first[n] : last[n]]."""
    sums = np.add.reduceat(values, first, dtype=np.int64)
    sums[first == last] = 0
    return sums
