"""Data sets at URLs hold the same videos, objects and frames as local ones; objects are fetched when read.

The oracle is the same data set on the disk. Frames are read through `runtime.copies`, in a bounded folder.
"""

import os
import time

import numpy as np
import pytest

from masktrack_jax.data.generate.options import GeneratorOptions
from masktrack_jax.data.generate.write import generate
from masktrack_jax.data.json_files import read_json, read_text
from masktrack_jax.data.layouts import find_dataset
from masktrack_jax.data.pack.write import pack
from masktrack_jax.data.splits import read_split
from masktrack_jax.data.vis import read_vis
from masktrack_jax.runtime import copies, remote
from masktrack_jax.runtime.errors import UserError, printable
from tests.helpers.stores import BUCKET, forget, memory_store, upload


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with 2 videos of 3 frames."""
    root = tmp_path_factory.mktemp("data") / "street"
    generate(root, GeneratorOptions(videos=2, seed=3, height=32, width=48, frames=3))
    return root


@pytest.fixture
def store(monkeypatch, tmp_path, data):
    store = memory_store(monkeypatch, tmp_path / "remote")
    upload(data, f"{BUCKET}/sets/street")
    return store


def files_copied():
    return [path for path in (remote.root() / "copies").rglob("*") if path.is_file()]


def copied():
    """The names of the files that are on the disk."""
    return {path.name for path in files_copied()}


def assert_same(ours, theirs):
    assert (ours.categories, ours.videos, ours.objects) == (theirs.categories, theirs.videos, theirs.objects)
    for video in theirs.videos:
        for frame in range(video.length):
            assert ours.has_frame(video, frame)
            assert np.array_equal(ours.read_frame(video, frame), theirs.read_frame(video, frame))


def test_a_root_at_a_url_is_searched_and_read_like_a_folder(store, data):
    theirs = read_split(find_dataset(data).splits["train"])
    ours = read_split(find_dataset(f"{BUCKET}/sets").splits["train"])
    assert copied() == {"instances.json"}
    assert printable(str(ours.frames_root)) == f"{BUCKET}/sets/street/JPEGImages"
    assert_same(ours, theirs)
    assert len(files_copied()) == 7
    assert copies.summary(ours.frames_root, 6).startswith(", 6 of them on this disk")


def test_the_top_of_a_bucket_is_not_listed(store, data, monkeypatch):
    """It may be closed, and hold a million objects."""
    listed = store.files.ls

    def refuse(url, **options):
        if url.rstrip("/") == BUCKET:
            raise PermissionError("not allowed")
        return listed(url, **options)

    monkeypatch.setattr(store, "ls", refuse, raising=False)
    remote.write(f"{BUCKET}/list.txt", b"one")
    assert read_text(copies.local(f"{BUCKET}/list.txt")) == "one"
    assert [
        copies.is_dir(copies.local(f"{BUCKET}{name}")) for name in ("/sets", "", "/list.txt", "/none")
    ] == [*(True, True, False, False)]
    assert_same(read_split(find_dataset(f"{BUCKET}/sets").splits["train"]), read_vis(data / "instances.json"))


def test_a_file_of_labels_at_a_url_has_its_frames_beside_it(store, data):
    file = copies.local(f"{BUCKET}/sets/street/instances.json")
    assert_same(read_vis(file), read_vis(data / "instances.json"))


def test_a_packed_set_is_fetched_whole(store, data, tmp_path):
    folder = pack(data, tmp_path / "packed", shards=2)
    upload(tmp_path / "packed", f"{BUCKET}/packed")
    ours = read_split(find_dataset(f"{BUCKET}/packed").splits["train"])
    theirs = read_split(find_dataset(folder).splits["train"])
    for video in theirs.videos:
        for frame in range(video.length):
            assert ours.packed.open(video, frame).read() == theirs.packed.open(video, frame).read()


def test_what_is_missing_is_named_by_its_url(store):
    with pytest.raises(UserError) as caught:
        find_dataset(f"{BUCKET}/nothing")
    assert str(caught.value).startswith(f"{BUCKET}/nothing: no such folder; ")
    with pytest.raises(UserError) as caught:
        read_vis(copies.local(f"{BUCKET}/sets/none.json"))
    assert (
        str(caught.value)
        == f"{BUCKET}/sets/none.json: cannot be read (No such file or directory); check the path"
    )
    dataset = read_vis(copies.local(f"{BUCKET}/sets/street/instances.json"))
    name = dataset.videos[0].file_names[0]
    remote.remove([f"{BUCKET}/sets/street/JPEGImages/{name}"])
    forget()
    assert not dataset.has_frame(dataset.videos[0], 0)
    with pytest.raises(UserError, match="no such image") as caught:
        dataset.read_frame(dataset.videos[0], 0)
    assert str(caught.value).startswith(f"{BUCKET}/sets/street/JPEGImages/{name}: ")


def test_a_copy_is_made_once_and_again_when_the_object_has_changed(store, monkeypatch):
    file, fetched = copies.local(f"{BUCKET}/sets/list.txt"), []
    get = store.files.get_file
    monkeypatch.setattr(store, "get_file", lambda *a: (fetched.append(a), get(*a)), raising=False)
    for number, content in enumerate((b"one", b"one", b"other"), start=1):
        if number != 2:
            remote.write(f"{BUCKET}/sets/list.txt", content)
        forget()
        assert read_text(file) == content.decode()
    assert len(fetched) == 2
    remote.remove([f"{BUCKET}/sets/list.txt"])
    forget()
    with pytest.raises(UserError, match="cannot be read"):
        read_text(file)


def test_an_object_of_the_same_size_but_another_time_is_fetched_again(store):
    file = copies.local(f"{BUCKET}/x.json")
    remote.write(f"{BUCKET}/x.json", b"[1]")
    assert read_json(file) == [1]
    remote.write(f"{BUCKET}/x.json", b"[2]")
    os.utime(file, (0, 0))  # it was written in the same second
    forget()
    assert read_json(file) == [2]


def test_a_failing_store_is_one_line_with_the_url(store, monkeypatch):
    def fail(*_):
        raise ConnectionError("Cannot connect")

    monkeypatch.setattr(store, "get_file", fail, raising=False)
    with pytest.raises(UserError) as caught:
        read_json(copies.local(f"{BUCKET}/sets/street/instances.json"))
    assert str(caught.value).startswith(
        f"{BUCKET}/sets/street/instances.json: cannot be read (Cannot connect); "
    )


def test_the_copies_that_were_not_used_for_the_longest_time_are_deleted(store, tmp_path):
    folder = remote.root() / "copies" / "memory" / "bucket"
    folder.mkdir(parents=True)
    hour = 3600
    ages = {"old": 3 * hour, "older": 5 * hour, "new": 0, "frames.array_record-00000-of-00001": 9 * hour}
    for name, age in ages.items():
        (folder / name).write_bytes(bytes(100))
        os.utime(folder / name, (time.time() - age, 1))
    copies.delete_old(300)
    assert copied() == ages.keys()
    copies.delete_old(250)  # 225 are left
    assert copied() == ages.keys() - {"older"}
    copies.delete_old(10)  # what was used lately stays
    assert copied() == {"new", "frames.array_record-00000-of-00001"}


@pytest.mark.parametrize("limit", ["x", "0", "-1", "nan"])
def test_a_limit_that_is_none_is_refused(monkeypatch, limit):
    monkeypatch.setenv("MASKTRACK_REMOTE_GB", limit)
    with pytest.raises(UserError, match=r"MASKTRACK_REMOTE_GB=.*must be a positive number"):
        copies._limit()


def test_a_tree_is_fetched_with_everything_in_it(store, data):
    folder = copies.fetched_tree(copies.local(f"{BUCKET}/sets/street"), "input")
    theirs = {path.relative_to(data): path.read_bytes() for path in data.rglob("*") if path.is_file()}
    assert theirs == {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
