"""Categories are matched by name and their parameters carried over row by row, against cases by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from masktrack_jax.checkpoints.categories import carry, class_shape, match_categories, unmatched
from masktrack_jax.interop.category_lists import LISTS


def names(choice):
    return [name for _, name in LISTS[choice]]


def test_spelling_does_not_matter():
    assert match_categories(["giant_panda", "Tennis-Racket", "x"], ["tennis racket", "Giant  Panda"]) == [
        1,
        0,
        None,
    ]


def test_letters_of_two_parts_are_letters():
    assert match_categories(["caf\u00e9", "stra\u00dfe"], ["STRASSE", "cafe\u0301"]) == [1, 0]


def test_the_same_name_goes_before_an_alias():
    assert match_categories(["sedan", "car"], ["car", "sedan"]) == [1, 0]
    assert match_categories(["sedan"], ["bus", "car"]) == [1]
    assert match_categories(["car"], ["sedan"]) == [0]


@pytest.mark.parametrize(
    "listed",
    [
        ["Cow", "cow", "COW"],
        ["traffic-light", "traffic light", "traffic_light"],
        ["sedan", "car", "motorcycle", "motorbike", "aeroplane", "airplane"],
        ["cat", "cat", "dog", "cat"],
        ["mouse", "keyboard", "computer mouse", "Mouse"],
        ["", " ", "-"],
    ],
)
def test_a_list_matches_itself(listed):
    assert match_categories(listed, listed) == list(range(len(listed)))
    turned = listed[::-1]
    assert [turned[place] for place in match_categories(listed, turned)] == listed


def test_no_two_names_get_the_same_category():
    assert match_categories(["Cow", "cow"], ["cow"]) == [None, 0]
    assert match_categories(["cow", "Cow", "dog"], ["COW", "dog"]) == [0, None, 1]
    assert match_categories(["sedan", "car"], ["Car"]) == [None, 0]


@given(*[st.lists(st.sampled_from(["car", "Car", "sedan", "mouse", "keyboard", "dog", "dog-"]))] * 2)
def test_matching_is_one_to_one_and_the_same_in_both_directions(ours, theirs):
    matches = match_categories(ours, theirs)
    taken = [place for place in matches if place is not None]
    assert len(set(taken)) == len(taken)
    back = match_categories(theirs, ours)
    assert all(back[place] == label for label, place in enumerate(matches) if place is not None)
    assert match_categories(ours, ours) == list(range(len(ours)))


def test_unmatched_names_are_counted():
    assert unmatched(["cat", "a\x1b[2Jb", "dog"], [0, None, 2]) == r"a\x1b[2Jb (1 of 3)"
    assert unmatched(["cow"] * 40, range(8)) == f"{'cow, ' * 30}… (32 of 40)"
    assert unmatched(["cat"], [0]) == ""


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
