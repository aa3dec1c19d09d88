"""The search for frames and the merging of inputs that the converters share."""

import os

import pytest

from masktrack_jax.data.convert.source import (
    Clip,
    Report,
    Source,
    in_order,
    list_folders,
    list_images,
    merge,
    named_file,
    number_images,
)
from masktrack_jax.runtime.errors import UserError
from tests.helpers.convert import write_image


def test_order_is_as_people_count():
    names = ["f10.jpg", "f9.jpg", "a", "f09.jpg", "f2_b", "f2_a", "10", "9", ""]
    assert in_order(names) == ["", "9", "10", "a", "f2_a", "f2_b", "f09.jpg", "f9.jpg", "f10.jpg"]
    assert in_order(["②0.png", "①0.png", "²", "10", "2"]) == ["2", "10", "²", "①0.png", "②0.png"]


def test_images_are_files(tmp_path):
    write_image(tmp_path / "2.JPG")
    write_image(tmp_path / "10.png")
    write_image(tmp_path / ".hidden.png")
    (tmp_path / "notes.txt").touch()
    assert [path.name for path in list_images(tmp_path)] == ["2.JPG", "10.png"]
    for name, make in (
        ("pipe.png", os.mkfifo),
        ("dangling.png", lambda path: os.symlink("none", path)),
        ("folder.png", os.mkdir),
    ):
        make(tmp_path / name)
        with pytest.raises(UserError, match=f"{name}: is not a file"):
            list_images(tmp_path)
        (os.rmdir if name == "folder.png" else os.unlink)(tmp_path / name)


def test_hidden_folders_are_no_videos(tmp_path):
    for name in ("2", "10", ".ipynb_checkpoints"):
        (tmp_path / name).mkdir()
    assert [path.name for path in list_folders(tmp_path)] == ["2", "10"]


def test_images_by_number(tmp_path):
    for name in ("cam2_0010.png", "cam2_9.jpg"):
        write_image(tmp_path / name)
    assert [(n, path.name) for n, path in number_images(tmp_path).items()] == [
        (9, "cam2_9.jpg"),
        (10, "cam2_0010.png"),
    ]
    write_image(tmp_path / "①.png")
    with pytest.raises(UserError, match=r"①\.png: is not named by its frame's number"):
        number_images(tmp_path)


def test_names_stay_inside(tmp_path):
    inside = tmp_path / "in" / "clip"
    inside.mkdir(parents=True)
    assert named_file("..\\x.jpg", inside, inside.parent) == tmp_path / "in" / "x.jpg"
    with pytest.raises(ValueError, match="leads out of"):
        named_file("../x.jpg", inside, inside)
    link = tmp_path / "linked"  # a folder that the user has linked is inside itself
    link.symlink_to(inside)
    assert named_file("x.jpg", link, tmp_path / "elsewhere") == link / "x.jpg"


@pytest.mark.parametrize(
    "lists, expected, noted",
    [
        ([[(18, "dog"), (3, "car")]], [(18, "dog"), (3, "car")], False),
        ([[(18, "dog"), (3, "car")], [(3, "car"), (4, "cat")]], [(18, "dog"), (3, "car"), (4, "cat")], False),
        ([[(1, "dog")], [(1, "car")]], [(1, "car"), (2, "dog")], True),
        ([[(1, "dog")], [(2, "dog")]], [(1, "dog")], True),
        ([[(None, "dog")], [(None, "car"), (None, "dog")]], [(1, "car"), (2, "dog")], False),
        ([[]], [], False),
    ],
)
def test_one_list_of_categories(lists, expected, noted):
    report = Report()
    assert merge([Source(given, []) for given in lists], report).categories == expected
    assert bool(report.notes) == noted


def test_two_inputs_with_one_video_are_refused():
    clip = Clip("a", (), lambda height, width: [])
    with pytest.raises(UserError, match="two inputs have a video 'a'"):
        merge([Source([], [clip]), Source([], [clip])], Report())
