"""URLs and their places on the disk: messages show URLs, every fault is one line, local paths stay local.

The oracle is fsspec's own file system in memory.
"""

import subprocess
import sys

import pytest

from masktrack_jax.runtime import remote
from masktrack_jax.runtime.errors import UserError, printable
from tests.helpers.configs import ROOT
from tests.helpers.stores import BUCKET, memory_store


@pytest.fixture
def store(monkeypatch, tmp_path):
    return memory_store(monkeypatch, tmp_path / "remote")


def line(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("tree", ["copies", "work", "work-3"])
def test_a_url_and_its_place_stand_for_each_other(store, tree):
    place = remote.place("memory://bucket/a b/ü.json", tree)
    assert place == remote.root() / tree / "memory" / "bucket" / "a b" / "ü.json"
    assert remote.url_of(place, tree.partition("-")[0]) == "memory://bucket/a b/ü.json"
    assert remote.place("memory://bucket/a b/", tree) == place.parent
    assert str(UserError(f"{place}: is odd")) == "memory://bucket/a b/ü.json: is odd"
    assert printable(str(place / "x")) == "memory://bucket/a b/ü.json/x"


@pytest.mark.parametrize(
    "url", ["memory://", "memory://b//x", "memory://b/../x", "memory://b/./x", "memory://b/a\0"]
)
def test_an_address_that_no_path_can_have_is_refused(store, url):
    assert line(remote.place, url, "copies").startswith(printable(url))


@pytest.mark.parametrize(
    "path", ["runs/demo", "/a/b", "gs:/b/x", "az://b/x", "http://b/x", "C:\\x", "", "-", None]
)
def test_other_paths_are_no_urls(path):
    assert not remote.is_url(path)
    assert remote.work(path) is path and remote.url_of(path) == ""


def test_a_file_that_has_the_name_of_a_url_stays_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert remote.is_url("gs://b")
    (tmp_path / "gs:" / "b").mkdir(parents=True)
    assert not remote.is_url("gs://b")


def test_objects_are_written_read_listed_and_deleted(store, tmp_path):
    (tmp_path / "file").write_bytes(b"12")
    remote.put(tmp_path / "file", f"{BUCKET}/x/a/file")
    remote.write(f"{BUCKET}/x/b", b"123")
    assert remote.read(f"{BUCKET}/x/b") == b"123" and remote.read(f"{BUCKET}/x/c") is None
    found = remote.listing(f"{BUCKET}/x")
    assert {name: (entry.folder, entry.size) for name, entry in found.items()} == {
        "a": (True, 0),
        "b": (False, 3),
    }
    assert {name: entry.size for name, entry in remote.tree(f"{BUCKET}/x").items()} == {"a/file": 2, "b": 3}
    assert found["b"].time > 1e9
    with pytest.raises(FileExistsError):
        remote.write(f"{BUCKET}/x/b", b"", new=True)
    remote.remove([f"{BUCKET}/x/b", f"{BUCKET}/x/none"])
    assert remote.listing(f"{BUCKET}/x").keys() == {"a"}
    assert remote.listing(f"{BUCKET}/none") == remote.tree(f"{BUCKET}/none") == {}


def test_names_that_lead_out_of_the_folder_are_left_out(store, monkeypatch):
    names = ["b/x/..", "b/x/.", "b/x/", "b/x/a\0b", "b/x/good", "b/x"]
    found = [{"name": name, "type": "file", "size": 1} for name in names]
    monkeypatch.setattr(store, "ls", lambda *_, **__: found, raising=False)
    assert remote.listing("memory://b/x").keys() == {"good"}
    monkeypatch.setattr(store, "find", lambda *_, **__: {item["name"]: item for item in found}, raising=False)
    assert remote.tree("memory://b/x").keys() == {"good"}


def test_an_error_of_the_store_is_one_line(store):
    def refuse(error):
        def before(name, path):
            raise error

        store.before = before
        return line(remote.write, f"{BUCKET}/x", b"")

    assert refuse(ConnectionError("Cannot connect\nto host")) == (
        "memory://bucket/x: cannot be written (Cannot connect to host); check the address and the network "
        "(docs/storage.md)"
    )
    assert refuse(PermissionError("no")).endswith("; check the credentials (docs/storage.md)")
    assert "check the credentials" in refuse(ValueError("Unable to locate credentials"))
    assert refuse(FileNotFoundError("bucket")).endswith("(there is no such bucket); create it")


def test_a_missing_package_is_named_with_the_extra(monkeypatch):
    remote._store.cache_clear()
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    text = line(remote.listing, "gs://bucket/x")
    assert text == (
        "gs://: needs the package gcsfs, which is not installed: pip install 'masktrack-jax[cloud]'"
    )


def test_outputs_are_sent_together_and_the_named_one_last(store, tmp_path):
    with remote.outputs(f"{BUCKET}/out/metrics.json") as path:
        for name in ("metrics.json", "results.json", ".hidden"):
            (remote.Path(path).parent).mkdir(parents=True, exist_ok=True)
            remote.Path(path).with_name(name).write_text(name)
        assert store.written == []
    assert [name.rpartition("/")[2] for name in store.written] == ["results.json", "metrics.json"]
    assert not remote.Path(path).exists()
    with remote.outputs(str(tmp_path / "m.json")) as path:
        assert path == str(tmp_path / "m.json")


def test_nothing_is_sent_after_an_error_and_all_is_kept_if_the_store_fails(store):
    with pytest.raises(RuntimeError), remote.outputs(f"{BUCKET}/out/m.json") as path:
        remote.Path(path).parent.mkdir(parents=True)
        remote.Path(path).write_text("")
        raise RuntimeError
    assert store.written == [] and not remote.Path(path).exists()

    def fail():
        with remote.outputs(f"{BUCKET}/out/m.json") as path:
            remote.Path(path).parent.mkdir(parents=True)
            remote.Path(path).write_text("1")
            store.before = lambda *_: (_ for _ in ()).throw(ConnectionError("gone"))

    assert line(fail).endswith(f"; the files are kept in the folder work of {remote.root()}")
    assert [path.read_text() for path in remote.root().glob("work-*/memory/bucket/out/*")] == ["1"]


def test_local_paths_load_no_library_of_stores():
    program = (
        "import sys; from masktrack_jax.data import layouts; from masktrack_jax.runtime import cli, copies\n"
        "from masktrack_jax.runtime import remote\n"
        "copies.is_file('x'); copies.fetched('x'); remote.work('x'); copies.local('a://b');"
        "sys.exit('fsspec' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
