"""Masks measured from their strings, against the pixels themselves and a writer of numbers in the helpers."""

import numpy as np
import pytest
from pycocotools import mask as rle_library

from masktrack_jax.masks import rle_strings as runs
from tests.helpers.rle_writer import pixels_of, random_lengths, string_of, write_numbers


@pytest.mark.parametrize("seed", range(20))
def test_measures_equal_the_pixels(seed):
    rng = np.random.default_rng(seed)
    problems = [random_lengths(rng) for _ in range(rng.integers(1, 30))]
    areas, covered, has_empty = runs.measure([string_of(lengths) for lengths in problems])
    assert areas.tolist() == [pixels_of(lengths).sum() for lengths in problems]
    assert covered.tolist() == [sum(lengths) for lengths in problems]
    assert has_empty.tolist() == [0 in lengths[1:] for lengths in problems]


@pytest.mark.parametrize("lengths", [[9, 0, 3], [9, 3, 0, 4], [0, 9, 3, 4, 0]])
def test_a_single_empty_run_is_noticed(lengths):
    strings = [string_of(lengths) for lengths in ([0, 12], lengths, [7], [5, 5])]
    assert runs.measure(strings)[2].tolist() == [False, True, False, False]


def test_the_writer_writes_what_pycocotools_writes():
    rng = np.random.default_rng(0)
    for density in (0, 0.01, 0.5, 1):
        mask = np.asfortranarray(rng.random((37, 61)) < density, np.uint8)
        pixels = np.concatenate([[0], mask.ravel(order="F")])
        ends = [*np.flatnonzero(np.diff(pixels)), mask.size]
        text = rle_library.encode(mask)["counts"].decode()
        assert string_of(np.diff(ends, prepend=0).tolist()) == text
        assert runs.measure([text])[0] == mask.sum()


def test_numbers_of_every_length_are_read():
    # 2^4 is the first that takes two characters, 2^9 three, …; the largest run is 2^28.
    sizes = [2**k + d for k in range(1, 28) for d in (-1, 0, 1)] + [2**28]
    areas, covered, _ = runs.measure([string_of([size, 1, 5, size]) for size in sizes])
    assert areas.tolist() == [1 + size for size in sizes]
    assert covered.tolist() == [6 + 2 * size for size in sizes]


@pytest.mark.parametrize("seed", range(10))
def test_empty_runs_are_merged_away(seed):
    rng = np.random.default_rng(seed)
    lengths = [int(n) for n in rng.integers(0, 3, 25)]
    merged = runs.without_empty_runs(string_of(lengths))
    assert np.array_equal(pixels_of(merged), pixels_of(lengths))
    assert 0 not in merged[1:]


@pytest.mark.parametrize(
    "text, word",
    [
        ("", "complete"),
        ("4o", "complete"),  # in the middle of a number
        ("/4", "complete"),
        ("p4", "complete"),
        ("é4", "complete"),
        ("PPPPPP0", "complete"),  # seven characters
        (write_numbers([-3, 4]), "negative"),
        (string_of([10, 5, 4, -5, 9]), "negative"),  # the rest adds up as if nothing were wrong
        (string_of([10, 5, -4, 5, 9]), "negative"),
        (write_numbers([0, 2**28 + 1]), "longer"),
    ],
)
@pytest.mark.parametrize("place", [0, 3, 6])
def test_a_broken_string_is_found_among_others(text, word, place):
    strings = [string_of([3, 70, 900]), string_of([5]), string_of([0, 40])] * 2
    strings.insert(place, text)
    with pytest.raises(runs.BrokenString, match=word) as error:
        runs.measure(strings)
    assert error.value.place == place
