"""Masks measured from their strings, against the pixels themselves and a writer of numbers of its own."""

import numpy as np
import pytest
from pycocotools import mask as rle_library

from masktrack_jax.evaluation.overlaps import compute_overlaps
from masktrack_jax.masks import rle_strings as runs
from masktrack_jax.masks import segmentations as masks


def write(numbers):
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
    return write([n - (lengths[i - 2] if i > 2 else 0) for i, n in enumerate(lengths)])


def pixels_of(lengths):
    return np.repeat(np.arange(len(lengths)) % 2, lengths)


def random_lengths(rng):
    """Runs of 300 pixels or so, from one run to every pixel its own, some of them empty."""
    longest = int(rng.choice([1, 3, 40, 4000]))
    lengths = rng.integers(0 if rng.random() < 0.5 else 1, longest + 1, rng.integers(1, 40)).tolist()
    return [0, *lengths] if rng.random() < 0.2 else lengths


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
        (write([-3, 4]), "negative"),
        (string_of([10, 5, 4, -5, 9]), "negative"),  # the rest adds up as if nothing were wrong
        (string_of([10, 5, -4, 5, 9]), "negative"),
        (write([0, 2**28 + 1]), "longer"),
    ],
)
@pytest.mark.parametrize("place", [0, 3, 6])
def test_a_broken_string_is_found_among_others(text, word, place):
    strings = [string_of([3, 70, 900]), string_of([5]), string_of([0, 40])] * 2
    strings.insert(place, text)
    with pytest.raises(runs.BrokenString, match=word) as error:
        runs.measure(strings)
    assert error.value.place == place


def test_runs_that_add_up_but_run_backwards_are_refused():
    # pycocotools never returns from a pair with such a mask.
    backwards = {"size": [5, 5], "counts": string_of([10, 5, -5, 15])}
    with pytest.raises(ValueError, match=r"frame 1: .*negative"):
        masks.read_track([None, backwards], (5, 5))


def rle(mask):
    found = rle_library.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(mask.shape), "counts": found["counts"].decode()}


def test_many_masks_are_read_and_named_like_few():
    # More than one batch, and more than the 255 masks pycocotools can measure in a call.
    rng = np.random.default_rng(0)
    dense = rng.random((3, 300, 4, 5)) < rng.random((3, 300, 1, 1))
    tracks = [[rle(mask) if mask.any() else None for mask in track] for track in dense]
    found = masks.read_tracks(tracks, (4, 5))
    for (rles, areas), track, given in zip(found, dense, tracks):
        expected = track.sum((1, 2))
        assert areas.tolist() == np.where(expected > 0, expected, -1).tolist()
        assert rles == given
    tracks[2][131] = {"size": [4, 6], "counts": rle(dense[2, 131])["counts"]}
    with pytest.raises(masks.BrokenMask, match=r"frame 131: .*cover 20 pixels, its size has 24") as error:
        masks.read_tracks(tracks, (4, 5))
    assert error.value.track == 2


def test_masks_of_many_forms_in_one_batch():
    mask = np.zeros((6, 8), bool)
    mask[1:4, 2:5] = True
    text = rle(mask)["counts"]
    polygon = [[2, 1, 5, 1, 5, 4, 2, 4]]
    counts = [13, 3, 3, 3, 3, 3, 20]
    forms = [{"size": [6, 8], "counts": form} for form in (text, text.encode(), counts)]
    rles, areas = masks.read_track([*forms, [], polygon, None, {"size": (6, 8), "counts": text}], (6, 8))
    assert areas.tolist() == [9, 9, 9, -1, 9, -1, 9]
    assert [found and found["counts"] for found in rles] == [text, text, text, None, text, None, text]


def test_overlap_of_masks_with_empty_runs_at_the_same_pixel():
    # One object of 10 pixels on both sides; pycocotools alone would find an overlap of nothing.
    split = {"size": [10, 10], "counts": string_of([30, 0, 0, 10, 60])}
    whole = {"size": [10, 10], "counts": string_of([30, 4, 0, 6, 60])}
    truth = {
        "videos": [{"id": 1}],
        "categories": [{"id": 1}],
        "annotations": [{"id": 1, "video_id": 1, "category_id": 1, "segmentations": [split, whole, split]}],
    }
    track = {"video_id": 1, "category_id": 1, "score": 1.0, "segmentations": [split, whole, whole]}
    (pair,) = compute_overlaps(truth, [track]).pairs
    assert pair.intersection.tolist() == [[[10, 10, 10]]]
    assert truth["annotations"][0]["segmentations"][0]["counts"] == split["counts"]


def test_overlap_of_more_masks_than_a_byte_counts():
    rng = np.random.default_rng(0)
    dense = rng.random((300, 4, 5)) < 0.5
    tracks = [{"video_id": 1, "category_id": 1, "score": 1.0, "segmentations": [rle(mask)]} for mask in dense]
    truth = {
        "videos": [{"id": 1}],
        "categories": [{"id": 1}],
        "annotations": [{**track, "id": n} for n, track in enumerate(tracks[:280])],
    }
    (pair,) = compute_overlaps(truth, tracks).pairs
    flat = dense.reshape(300, 20).astype(int)
    assert np.array_equal(pair.intersection[..., 0], flat @ flat[:280].T)
