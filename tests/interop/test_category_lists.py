"""Category lists of files are read as labels are, and known lists by their names."""

import json

import pytest

from masktrack_jax.data.json_files import read_labels
from masktrack_jax.interop.category_lists import LISTS, read_categories
from masktrack_jax.runtime.errors import UserError


def test_lists_and_annotations_are_read(tmp_path):
    path = tmp_path / "names.json"
    path.write_text(json.dumps(["cat", "dog"]))
    assert read_categories(str(path)) == [(1, "cat"), (2, "dog")]
    path.write_text(json.dumps({"categories": [{"id": 7.0, "name": "cat"}]}))
    assert read_categories(str(path)) == [(7, "cat")]
    assert read_categories("ovis") == LISTS["ovis"]


@pytest.mark.parametrize("record", [{"id": "1"}, {"id": 1.7}, {"id": True}, {"name": None}, {"name": 5}])
def test_categories_that_labels_may_not_have_are_refused_with_the_same_line(tmp_path, record):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"categories": [{"id": 1, "name": "cat"} | record], "videos": []}))
    lines = set()
    for read in (read_labels, read_categories):
        with pytest.raises(UserError) as caught:
            read(str(path))
        lines.add(str(caught.value))
    assert len(lines) == 1
