"""The linter notes objects and categories that may be one under two names."""

import pytest

from masktrack_jax.data.lint.dataset import lint
from tests.helpers.lint_faults import annotation, clean, rle, write


def moving(number, category, frame, x):
    """An object seen in one frame of video 1."""
    box = [x, 4, 11, 8]
    lists = {"segmentations": rle(*box), "bboxes": box, "areas": 88}
    return annotation(
        number,
        category_id=category,
        **{k: [v if t == frame else None for t in (0, 1)] for k, v in lists.items()},
    )


@pytest.mark.parametrize(("category", "x", "noted"), [(2, 8, True), (2, 18, False), (1, 8, False)])
def test_an_object_that_goes_on_as_another_category_is_noted(tmp_path, category, x, noted):
    content = clean()
    content["annotations"][:1] = [moving(1, 1, 0, 6), moving(3, category, 1, x)]
    notes = lint(write(tmp_path, content)).notes
    assert ("objects that may change their category" in notes) == noted
    if noted:
        (example,) = notes["objects that may change their category"].examples
        assert example == "video 1, frame 1: annotation 1 ('ape') goes on as annotation 3 ('seal')"


@pytest.mark.parametrize(
    ("one", "two", "noted"),
    [
        ("Cow", "cow", True),
        ("cow-1", "cow-2", True),
        ("t-shirt", "t_shirt", True),
        ("1", "2", False),
        ("cow", "crow", False),
    ],
)
def test_nearly_equal_names_of_categories_are_noted(tmp_path, one, two, noted):
    content = clean()
    content["categories"][0]["name"], content["categories"][1]["name"] = one, two
    findings = lint(write(tmp_path, content))
    assert findings.errors == {}
    if not noted:
        assert findings.notes == {}
        return
    (example,) = findings.notes["category names that are nearly equal"].examples
    assert example == f"{one!r} and {two!r}; give one category one name"
