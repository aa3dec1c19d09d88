"""Segmentations of every form become one mask, or an error of one line: against pycocotools and pixels."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from masktrack_jax.masks.rle import mask_box
from masktrack_jax.masks.segmentations import (
    BrokenMask,
    BrokenSegmentation,
    decode_segmentation,
    read_each,
    read_masks,
    read_track,
    read_tracks,
    to_rle,
)
from masktrack_jax.runtime.errors import UserError
from tests.helpers.annotations import HEIGHT, POLYGON, WIDTH, compressed, object_mask, uncompressed
from tests.helpers.rle_writer import rle, string_of


def test_three_kinds_of_segmentation_are_oneobject_mask():
    mask = object_mask()
    for segmentation in (uncompressed(mask), compressed(mask), POLYGON):
        decoded = decode_segmentation(segmentation, HEIGHT, WIDTH)
        assert decoded.dtype == np.uint8
        np.testing.assert_array_equal(decoded, mask)
    noise = (np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.4).astype(np.uint8)
    as_bytes = coco_mask.encode(np.asfortranarray(noise))
    for segmentation in (uncompressed(noise), compressed(noise), as_bytes):
        np.testing.assert_array_equal(decode_segmentation(segmentation, HEIGHT, WIDTH), noise)


def test_compressed_counts_are_checked_to_the_last_character():
    noise = (np.random.default_rng(1).random((200, 300)) < 0.5).astype(np.uint8)
    noise[:, 50:250] = 0
    whole = compressed(noise)
    np.testing.assert_array_equal(decode_segmentation(whole, 200, 300), noise)
    for cut in (1, 2, 3, 50, len(whole["counts"]) - 1):
        with pytest.raises(UserError, match=r"runs cover|not a complete RLE|negative"):
            decode_segmentation(whole | {"counts": whole["counts"][:-cut]}, 200, 300)


def test_polygons_of_one_object_are_joined():
    left, right = [2, 2, 6, 2, 6, 8, 2, 8], [10, 2, 14, 2, 14, 8, 10, 8]
    both = decode_segmentation([left, right], HEIGHT, WIDTH)
    parts = [decode_segmentation([polygon], HEIGHT, WIDTH) for polygon in (left, right)]
    np.testing.assert_array_equal(both, parts[0] | parts[1])


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        {"counts": [600]},
        {"size": 20, "counts": [600]},
        {"size": [WIDTH, HEIGHT], "counts": [600]},
        {"size": [HEIGHT, WIDTH], "counts": [599]},
        {"size": [HEIGHT, WIDTH], "counts": [601, -1]},
        {"size": [HEIGHT, WIDTH], "counts": "zzzzzz"},
        {"size": [HEIGHT, WIDTH], "counts": "0"},
        {"size": [HEIGHT, WIDTH], "counts": "PPPPPPPPPPPPP0"},
        {"size": [HEIGHT, WIDTH], "counts": "é"},
        {"size": [HEIGHT, WIDTH], "counts": 5},
        [],
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, "6"]],
        [[1, 2, 3, 4, 5, 1e30]],
        [[1, 2, 3, 4, 5, float("nan")]],
        [[0, 0, 999_999, 0, 0, 1] * 3],
    ],
)
def test_bad_segmentation_is_one_line(segmentation):
    with pytest.raises(UserError) as caught:
        decode_segmentation(segmentation, HEIGHT, WIDTH)
    assert "\n" not in str(caught.value)


def test_runs_that_add_up_but_run_backwards_are_refused():
    # pycocotools never returns from a pair with such a mask.
    backwards = {"size": [5, 5], "counts": string_of([10, 5, -5, 15])}
    with pytest.raises(ValueError, match=r"frame 1: .*negative"):
        read_track([None, backwards], (5, 5))


def test_many_masks_are_read_and_named_like_few():
    # More than one batch, and more than the 255 masks pycocotools can measure in a call.
    rng = np.random.default_rng(0)
    dense = rng.random((3, 300, 4, 5)) < rng.random((3, 300, 1, 1))
    tracks = [[rle(mask) if mask.any() else None for mask in track] for track in dense]
    found = read_tracks(tracks, (4, 5))
    for (rles, areas), track, given in zip(found, dense, tracks):
        expected = track.sum((1, 2))
        assert areas.tolist() == np.where(expected > 0, expected, -1).tolist()
        assert rles == given
    tracks[2][131] = {"size": [4, 6], "counts": rle(dense[2, 131])["counts"]}
    with pytest.raises(BrokenMask, match=r"frame 131: .*cover 20 pixels, its size has 24") as error:
        read_tracks(tracks, (4, 5))
    assert error.value.track == 2


def test_masks_of_many_forms_in_one_batch():
    mask = np.zeros((6, 8), bool)
    mask[1:4, 2:5] = True
    text = rle(mask)["counts"]
    polygon = [[2, 1, 5, 1, 5, 4, 2, 4]]
    counts = [13, 3, 3, 3, 3, 3, 20]
    forms = [{"size": [6, 8], "counts": form} for form in (text, text.encode(), counts)]
    rles, areas = read_track([*forms, [], polygon, None, {"size": (6, 8), "counts": text}], (6, 8))
    assert areas.tolist() == [9, 9, 9, -1, 9, -1, 9]
    assert [found and found["counts"] for found in rles] == [text, text, text, None, text, None, text]


def polygon_of(*numbers):
    return [list(numbers)]


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        (polygon_of(6, 4, 17, 4), "three or more"),  # pycocotools takes it for a box
        (polygon_of(6, 4, 17, 4, 17, 12, 6), "three or more"),
        (polygon_of(6, 4, "17", 4, 17, 12), "other than numbers"),
        ({"size": [HEIGHT, WIDTH], "counts": "é"}, "complete"),
        ({"size": [HEIGHT, WIDTH], "counts": "PPPPPP0"}, "complete"),  # seven characters for one number
    ],
)
def test_broken_segmentations_are_refused_for_training_and_evaluation_alike(segmentation, reason):
    """Each was read by one of the two before they shared a reader."""
    with pytest.raises(UserError, match=reason):
        decode_segmentation(segmentation, HEIGHT, WIDTH)
    with pytest.raises(BrokenMask, match=reason):
        read_track([segmentation], (HEIGHT, WIDTH))


def test_harmless_differences_are_read_for_training_and_evaluation_alike():
    mask = object_mask()
    for segmentation in (
        [list(np.float32(POLYGON[0]))],
        {"size": (HEIGHT, WIDTH), "counts": compressed(mask)["counts"].encode()},
        compressed(mask) | {"score": 1},
    ):
        (found,), (area,) = read_track([segmentation], (HEIGHT, WIDTH))
        assert found["counts"] == compressed(mask)["counts"] and area == mask.sum()
        np.testing.assert_array_equal(decode_segmentation(segmentation, HEIGHT, WIDTH), mask)


def test_another_size_than_the_frame_is_allowed_only_where_asked_for():
    turned = compressed(object_mask().T)
    assert to_rle(turned, (HEIGHT, WIDTH), any_size=True) == turned
    with pytest.raises(BrokenSegmentation, match=r"size \[30, 20\] but its video is \[20, 30\]"):
        to_rle(turned, (HEIGHT, WIDTH))
    with pytest.raises(BrokenSegmentation, match=r"size \[30, 20\]") as error:
        read_masks([compressed(object_mask()), turned], (HEIGHT, WIDTH))
    assert error.value.place == 1


def test_each_mask_is_read_or_has_its_error():
    good, bad = uncompressed(object_mask()), {"size": [HEIGHT, WIDTH], "counts": [5]}
    first, second, third = read_each([good, bad, POLYGON], (HEIGHT, WIDTH))
    assert first == third == (compressed(object_mask()), 88)
    assert isinstance(second, BrokenSegmentation) and "cover 5 pixels" in str(second)
    assert list(read_each([], (HEIGHT, WIDTH))) == []
    assert list(read_each([good] * 300, (HEIGHT, WIDTH))) == [first] * 300


def test_empty_runs_are_merged_away_before_the_box_is_measured():
    # pycocotools counts the pixel of an empty run into the box.
    counts = [2 * HEIGHT, 0, 5 * HEIGHT, 3, WIDTH * HEIGHT - 7 * HEIGHT - 3]
    assert mask_box(to_rle({"size": [HEIGHT, WIDTH], "counts": counts}, (HEIGHT, WIDTH))) == [7, 0, 1, 3]


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [HEIGHT, WIDTH], "counts": ""}, "counts is an empty text, not a complete RLE string"),
        ({"size": [HEIGHT, WIDTH], "counts": "b'04'"}, "Python's text of bytes, b'…'; decode it before"),
        ({"size": [HEIGHT, WIDTH], "counts": 'b"04"'}, "Python's text of bytes, b'…'; decode it before"),
        ({"size": [HEIGHT, WIDTH], "counts": [0.5, 599.5]}, "not a list of integers"),
        ({"size": [HEIGHT, WIDTH], "counts": [True, 599]}, "not a list of integers"),
        ({"size": [HEIGHT, True], "counts": "0"}, "RLE of size"),
        ([5, 6, 20, 6, 9, 9], r"one list of numbers; write a list of polygons: \[\[x, y"),
        ([[5, 6, 20, True, 9, 9]], "something other than numbers"),
    ],
)
def test_common_wrong_turns_have_their_own_line(segmentation, message):
    with pytest.raises(BrokenSegmentation, match=message):
        read_masks([segmentation], (HEIGHT, WIDTH))


def test_whole_floats_are_integers():
    mask = uncompressed(object_mask())
    floats = {"size": [20.0, 30.0], "counts": [float(run) for run in mask["counts"]]}
    assert read_masks([floats], (HEIGHT, WIDTH)) == read_masks([mask], (HEIGHT, WIDTH))
    (track,) = read_tracks([[floats]], (HEIGHT, WIDTH))
    assert track.rles == [compressed(object_mask())]
