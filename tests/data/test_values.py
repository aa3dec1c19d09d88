"""Values of JSON records, against values written by hand."""

import pytest

from masktrack_jax.data.values import as_id, numbered_id


@pytest.mark.parametrize(
    "value, found, numbered",
    [
        (7, 7, 7),
        (7.0, 7, 7),
        ("7", "7", 7),
        ("cow-7", "cow-7", "cow-7"),
        ("9" * 5000, "9" * 5000, "9" * 5000),
        (7.5, None, None),
        (True, None, None),
        (None, None, None),
        ([7], None, None),
    ],
)
def test_ids(value, found, numbered):
    assert as_id(value) == found and numbered_id(value) == numbered
