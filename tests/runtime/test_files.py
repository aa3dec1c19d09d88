"""Files and folders appear complete or not at all: the folder is listed after success and after errors."""

import os

import pytest

from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import check_replaceable, whole


def test_a_file_is_replaced_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "a.json"
    for text in ("first", "second"):
        with whole(path) as partial:
            partial.write_text(text)
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == text
    assert os.listdir(path.parent) == ["a.json"]


def test_a_folder_takes_the_place_of_an_empty_one(tmp_path):
    path = tmp_path / "set"
    path.mkdir()
    with whole(path) as partial:
        (partial / "deep").mkdir(parents=True)
    assert (path / "deep").is_dir() and os.listdir(tmp_path) == ["set"]
    with pytest.raises(UserError, match=r"set: cannot be written .*; choose another"), whole(path) as partial:
        partial.mkdir()
    assert (path / "deep").is_dir() and os.listdir(tmp_path) == ["set"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_nothing_is_left_after_an_error(tmp_path, kind):
    path = tmp_path / "out"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole(path) as partial:
        if kind == "folder":
            partial.mkdir()
            partial = partial / "member"
        partial.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["out"]


def test_what_the_disk_refuses_is_one_line(tmp_path):
    with (
        pytest.raises(UserError, match=r"out: cannot be written .No space left on device.; give another"),
        whole(tmp_path / "out", "give another") as partial,
    ):
        partial.write_text("half")
        raise OSError(28, os.strerror(28))
    assert not os.listdir(tmp_path)
    with (
        pytest.raises(UserError, match=r"input\.jpg: No such file.*needed for .*out"),
        whole(tmp_path / "out"),
    ):
        (tmp_path / "input.jpg").read_bytes()  # beside the output, and yet not it
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written"), whole(tmp_path / "file" / "out"):
        raise AssertionError("never comes here")


@pytest.mark.parametrize("path", ["/dev/null", "/dev/stdout", "/proc/self/fd/1", "pipe"])
def test_a_device_is_not_replaced(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    monkeypatch.setattr(os, "replace", lambda *_: pytest.fail("the device would be replaced"))
    with (
        pytest.raises(UserError, match=f"^{path}: is a device or a pipe, which a file would replace; choose"),
        whole(path),
    ):
        pytest.fail("something would be written")
    check_replaceable("/dev/shm/new")


def test_a_name_that_is_too_long_is_one_line(tmp_path):
    words = r"cannot be written \(File name too long\); choose another --output"
    with pytest.raises(UserError, match=words), whole(tmp_path / ("x" * 250)) as partial:
        partial.touch()


@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_or_device_is_never_replaced(tmp_path, linked):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    if linked:
        path = tmp_path / "link"
        path.symlink_to("pipe")
    with (
        pytest.raises(UserError, match="is a device or a pipe, which a file would replace; choose"),
        whole(path),
    ):
        pass
    assert not path.is_file()
