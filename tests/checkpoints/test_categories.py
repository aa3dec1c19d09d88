"""Categories are matched by name and their parameters carried over row by row, against cases by hand."""

import numpy as np
import pytest

from masktrack_jax.checkpoints.categories import carry, class_shape, match_categories
from masktrack_jax.interop.category_lists import LISTS


def names(choice):
    return [name for _, name in LISTS[choice]]


def test_spelling_does_not_matter():
    assert match_categories(["giant_panda", "Tennis-Racket", "x"], ["tennis racket", "Giant  Panda"]) == [
        1,
        0,
        None,
    ]


def test_the_same_name_goes_before_an_alias():
    assert match_categories(["sedan", "car"], ["car", "sedan"]) == [1, 0]
    assert match_categories(["sedan"], ["bus", "car"]) == [1]
    assert match_categories(["car"], ["sedan"]) == [0]


def test_a_mouse_is_not_a_mouse():
    """YouTube-VIS has the animal, COCO the device."""
    found = dict(zip(names("youtubevis2019"), match_categories(names("youtubevis2019"), names("coco"))))
    assert found["mouse"] is None and found["bear"] == 21
    assert match_categories(names("youtubevis2021"), names("youtubevis2019"))[23] == 35
    assert match_categories(["mouse", "keyboard"], names("coco")) == [64, 66]


@pytest.mark.parametrize(
    "ours, theirs, count",
    [
        ("youtubevis2019", "coco", 19),
        ("youtubevis2021", "coco", 21),
        ("ovis", "coco", 15),
        ("youtubevis2021", "youtubevis2019", 36),
        ("coco", "coco", 80),
    ],
)
def test_known_lists(ours, theirs, count):
    matches = match_categories(names(ours), names(theirs))
    assert len(matches) - matches.count(None) == count
    assert ours != theirs or matches == list(range(80))


def test_known_lists_have_their_ids():
    assert {name: len(labels) for name, labels in LISTS.items()} == {
        "youtubevis2019": 40,
        "youtubevis2021": 40,
        "ovis": 25,
        "coco": 80,
    }
    assert [i for i, _ in LISTS["youtubevis2021"]] == list(range(1, 41))
    coco = dict(LISTS["coco"])
    assert (coco[1], coco[13], coco[44], coco[67], coco[90]) == (
        "person",
        "stop sign",
        "bottle",
        "dining table",
        "toothbrush",
    )


@pytest.mark.parametrize(
    "name, shape, wanted",
    [
        ("params/box_head/logits/kernel", (9, 4), (9, 6)),
        ("params/box_head/logits/bias", (4,), (6,)),
        ("params/box_head/deltas/kernel", (9, 12), (9, 20)),
        ("params/mask_head/logits_kernel", (9, 3), (9, 5)),
        ("params/mask_head/deconv/kernel", (2, 2, 3, 3), (2, 2, 3, 3)),
        ("params/rpn_head/logits/conv/kernel", (9, 3), (9, 3)),
    ],
)
def test_shapes_for_another_number_of_classes(name, shape, wanted):
    assert class_shape(name, shape, 5) == wanted


def test_rows_are_carried_over():
    """Three classes from four: 1, none, 0. The background goes with the logits."""
    matches = [1, None, 0]
    there = np.arange(5.0)
    carried = carry("params/box_head/logits/bias", np.full(4, -1.0), there, matches)
    np.testing.assert_array_equal(carried, [1, -1, 0, 4])
    carried = carry(
        "params/mask_head/logits_kernel", np.full((2, 3), -1.0), np.arange(8.0).reshape(2, 4), matches
    )
    np.testing.assert_array_equal(carried, [[1, -1, 0], [5, -1, 4]])
    carried = carry("params/box_head/deltas/bias", np.full(12, -1.0), np.arange(16.0), matches)
    np.testing.assert_array_equal(carried, [4, 5, 6, 7, -1, -1, -1, -1, 0, 1, 2, 3])
    assert carry("params/fpn/x", np.zeros(2), there, matches) is there
