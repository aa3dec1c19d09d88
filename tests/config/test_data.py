"""Keys of the data sets given on the command line go before the files of the config file, or are refused."""

import pytest

from masktrack_jax.config.data import replace_files
from masktrack_jax.runtime.errors import UserError
from tests.helpers.configs import load_config

FILES = ("train_annotations", "val_annotations")


def given(**keys):
    """The `data` section of configs/tiny.py with these keys given, and the lines said."""
    data = load_config("tiny").data
    data.update(keys)
    return data, list(replace_files(data, [f"data.{key}" for key in keys]))


def test_a_root_goes_before_the_files_of_a_preset():
    data, lines = given(root="sets")
    assert (data.root, data.train_annotations, data.val_annotations) == ("sets", "", "")
    assert lines == [
        f"config.data.{key}=data/tiny/instances.json gives way to config.data.root" for key in FILES
    ]


def test_given_files_stay_beside_a_given_root():
    data, lines = given(root="sets", train_annotations="a.json", train_frames="a")
    assert (data.train_annotations, data.train_frames, data.val_annotations) == ("a.json", "a", "")
    assert len(lines) == 1


@pytest.mark.parametrize("keys", [{"holdout": "tenth"}, {"val_split": ""}])
def test_the_choice_of_videos_goes_before_the_validation_file(keys):
    data, (line,) = given(**keys)
    assert data.train_annotations and not data.val_annotations
    assert (
        line == f"config.data.val_annotations=data/tiny/instances.json gives way to config.data.{min(keys)}"
    )


def test_nothing_given_changes_nothing():
    data, lines = given()
    assert data.to_dict() == load_config("tiny").data.to_dict() and not lines


@pytest.mark.parametrize(
    "keys, key",
    [
        ({"root": "sets", "train_annotations": "a", "val_annotations": "b"}, "root"),
        ({"root": "sets", "train_annotations": "a", "holdout": "tenth"}, "root"),
        ({"name": "ovis"}, "name"),
        ({"root": "sets", "train_frames": "a"}, "train_frames"),
        ({"root": "sets", "val_frames": "a"}, "val_frames"),
        ({"holdout": "tenth", "val_annotations": "b"}, "val_annotations"),
        ({"val_split": "test"}, "val_split"),
        ({"root": "sets", "holdout": "tenth", "val_split": "test"}, "val_split"),
    ],
)
def test_a_key_without_effect_is_refused(keys, key):
    with pytest.raises(UserError) as error:
        given(**keys)
    text = str(error.value)
    assert text.startswith(f"config.data.{key}: '{keys[key]}' has no effect, since ") and "\n" not in text
