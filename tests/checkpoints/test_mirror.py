"""A run at a URL: whatever is cut off and when, what is there can be resumed from.

Without a network: the files of a run are written as a run writes them. The store is fsspec's in memory, and
fails or ends the process at any of its operations.
"""

import contextlib
import json
import shutil

import jax
import pytest

from masktrack_jax.checkpoints import digests, mirror
from masktrack_jax.checkpoints.digests import check_digests, write_digests
from masktrack_jax.checkpoints.metadata import find_step_folder, read_metadata
from masktrack_jax.checkpoints.mirror import BEST, STEPS, mirrored
from masktrack_jax.checkpoints.steps import Checkpoints
from masktrack_jax.runtime import remote, remote_lock
from masktrack_jax.runtime.errors import UserError
from tests.checkpoints.test_store import small_state
from tests.helpers.checkpoints import CATEGORIES
from tests.helpers.configs import load_config
from tests.helpers.stores import BUCKET, forget, memory_store

RUN = f"{BUCKET}/runs/demo"


@pytest.fixture(autouse=True)
def store(monkeypatch, tmp_path):
    monkeypatch.setattr(remote_lock, "SETTLE", 0)
    monkeypatch.setattr(digests, "sync", lambda path: None)  # slow
    for name, seconds in {"POLL": 100, "PATIENCE": 0.05, "PAUSE": 0.01}.items():
        monkeypatch.setattr(mirror, name, seconds)
    return memory_store(monkeypatch, tmp_path / "remote")


class Killed(BaseException):
    """The process ends."""


def checkpoint(folder, step):
    """A folder with two files of two items, and their digests."""
    work = folder.with_name(f".{folder.name}-new")
    for item in ("variables", "about"):
        (work / item).mkdir(parents=True)
        (work / item / "data").write_text(f"{item} of step {step}")
    write_digests(work)
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)


def train(folder, first, last, keep=2):
    """Write what a run writes in the steps `first` to `last`; each has a better score than the one before."""
    for step in range(first, last + 1):
        for name in ("metrics.jsonl", "validation.jsonl"):
            with open(folder / name, "a") as file:
                file.write(json.dumps({"step": step}) + "\n")
        checkpoint(folder / BEST, step)
        checkpoint(folder / STEPS / str(step), step)
        if step > keep:
            shutil.rmtree(folder / STEPS / str(step - keep), ignore_errors=True)


def rows(folder, name):
    text = (folder / name).read_text() if (folder / name).is_file() else ""
    return [json.loads(line)["step"] for line in text.splitlines()]


def newest(folder):
    steps = [int(path.parent.name) for path in folder.glob(f"{STEPS}/*/digests.json")]
    return max(steps, default=0)


def assert_whole(folder):
    """What a run resumes from is whole: its checkpoint, the rows up to it, `best` of its last score."""
    step = newest(folder)
    for path in folder.glob(f"{STEPS}/*"):
        check_digests(path)
        assert (path / "about" / "data").read_text() == f"about of step {path.name}"
    assert rows(folder, "metrics.jsonl")[:step] == list(range(1, step + 1))
    scored = rows(folder, "validation.jsonl")
    if scored and (folder / BEST / "digests.json").is_file():
        check_digests(folder / BEST)
        assert int((folder / BEST / "about" / "data").read_text().split()[-1]) >= scored[-1]
    return step


def test_a_local_workdir_is_left_alone(tmp_path, store):
    with mirrored(str(tmp_path), "") as folder:
        assert folder == str(tmp_path) and mirror.mirror_of(tmp_path / STEPS) is None
    assert store.written == []


def test_a_run_is_copied_and_its_local_folder_deleted(store):
    with mirrored(RUN, "") as folder:
        train(folder, 1, 3)
        (folder / "tensorboard").mkdir()
        (folder / "tensorboard" / "events.1").write_bytes(b"12")
        (folder / ".hidden").touch()
        with open(folder / "metrics.jsonl", "a") as file:
            file.write('{"step": 4, "lo')
    files = {
        f"{at}/{name}"
        for at in (BEST, "checkpoints/2", "checkpoints/3")
        for name in ("variables/data", "about/data", "digests.json")
    }
    assert store.names(RUN) == files | {"metrics.jsonl", "validation.jsonl", "tensorboard/events.1"}
    assert remote.read(f"{RUN}/metrics.jsonl") == b'{"step": 1}\n{"step": 2}\n{"step": 3}\n'
    assert not folder.exists()
    with mirrored(RUN, "") as folder:
        assert assert_whole(folder) == 3
        train(folder, 4, 4)
    assert {name.split("/")[1] for name in store.names(RUN) if name.startswith(STEPS)} == {"3", "4"}


def test_seals_and_rows_come_after_what_they_stand_for(store):
    with mirrored(RUN, "") as folder:
        train(folder, 1, 2)
        mirror.mirror_of(folder / STEPS).flush()
    order = [path.removeprefix(f"{RUN}/") for path in store.written]
    for name in (BEST, "checkpoints/1", "checkpoints/2"):
        assert [path for path in order if path.startswith(name)][-1] == f"{name}/digests.json"
    assert order.index(f"{BEST}/digests.json") < order.index("validation.jsonl")
    assert order.index("metrics.jsonl") < order.index("checkpoints/2/about/data")


@pytest.mark.parametrize("kind, every", [(Killed, 3), (ConnectionError, 9)])
def test_a_run_resumes_after_an_end_at_any_operation(store, kind, every):
    """On this machine and on another one. The store holds steps 1 and 2, and steps 3 and 4 are under way."""
    with mirrored(RUN, "") as folder:
        train(folder, 1, 2)
    base, resumed, operation, ended = dict(store.files.store), set(), 0, False
    while not ended:
        restart(store, base)
        left = [operation]

        def end(name, path, left=left):
            if remote_lock.NAME not in path:
                left[0] -= 1
                if left[0] < 0:
                    raise kind("gone")

        with contextlib.suppress(Killed, UserError), mirrored(RUN, "") as folder:
            train(folder, 3, 4)
            store.before = end
            with contextlib.suppress(Killed, UserError):
                mirror.mirror_of(folder / STEPS).flush()
            ended = left[0] >= 0
        store.before = lambda *_: None
        remote.remove([f"{RUN}/{remote_lock.NAME}"])
        there = dict(store.files.store)
        with mirrored(RUN, "") as folder:
            assert assert_whole(folder) == 4
        restart(store, there)
        with mirrored(RUN, "") as folder:
            resumed.add(assert_whole(folder))
            train(folder, newest(folder) + 1, 5)
        assert newest_there() == 5
        operation += every
    assert resumed == {2, 4} and operation > 20


def restart(store, objects):
    """Another machine, and these objects in the store."""
    shutil.rmtree(remote.root(), ignore_errors=True)
    store.files.store.clear()
    store.files.store.update(objects)


def newest_there():
    return max(int(name.split("/")[1]) for name in remote.tree(RUN) if name.startswith(STEPS))


def test_a_store_that_fails_for_a_while_does_not_end_the_run(store, monkeypatch, capsys):
    monkeypatch.setattr(mirror, "POLL", 0.005)
    with mirrored(RUN, "") as folder:
        store.before = lambda *_: (_ for _ in ()).throw(ConnectionError("gone"))
        train(folder, 1, 1)
        here = mirror.mirror_of(folder / STEPS)
        while "tries again" not in (out := capsys.readouterr().out):
            here.settle()
        assert "memory://bucket/runs/demo" in out and "cannot be" in out
        assert here.saved() == 0
        store.before = lambda *_: None
        while "can be written to again; step 1 is saved there" not in capsys.readouterr().out:
            here.settle()
        assert here.saved() == 1


def test_a_store_that_is_gone_at_the_end_is_one_line_and_all_is_kept(store):
    with pytest.raises(UserError) as caught, mirrored(RUN, "") as folder:
        train(folder, 1, 2)
        mirror.mirror_of(folder / STEPS).flush()
        train(folder, 3, 3)
        store.before = lambda *_: (_ for _ in ()).throw(ConnectionError("gone"))
    text = str(caught.value)
    assert text.startswith(RUN) and "(gone)" in text and "\n" not in text
    kept = f"all is kept in the folder work of {remote.root()}: the same command resumes"
    assert text.endswith(f"; step 2 is saved there, {kept}")
    assert newest(folder) == 3
    store.before = lambda *_: None
    remote.remove([f"{RUN}/{remote_lock.NAME}"])
    with mirrored(RUN, "") as folder:
        assert newest(folder) == 3


def test_local_files_of_another_run_or_behind_give_way(store):
    with pytest.raises(Killed), mirrored(RUN, "") as folder:
        train(folder, 1, 2)
        raise Killed
    assert newest(folder) == 2
    remote.remove([f"{RUN}/{name}" for name in remote.tree(RUN)])  # the user starts again
    with mirrored(RUN, "") as folder:
        assert newest(folder) == 0 and not (folder / "metrics.jsonl").exists()
        train(folder, 1, 1)
        aside = shutil.copytree(folder, folder.with_name("aside"))
    with mirrored(RUN, "") as folder:
        train(folder, 2, 4)
    shutil.move(aside, folder)
    with mirrored(RUN, "") as folder:
        assert assert_whole(folder) == 4


def test_a_run_that_somebody_copied_there_is_resumed_and_other_files_are_left_alone(store):
    """Its checkpoints have no digests, as those of older versions; runs lie below it."""
    for name in (
        "checkpoints/7/about/data",
        "checkpoints/9/about/data",
        "checkpoints/damaged-8/digests.json",
    ):
        remote.write(f"{RUN}/{name}", b"")
    others = {"other/checkpoints/5/digests.json", "movie.mp4", "tensorboard/events.1", "checkpoints/note"}
    for name in others:
        remote.write(f"{RUN}/{name}", b"1")
    with mirrored(RUN, "") as folder:
        files = [path for path in folder.rglob("*") if path.is_file() and path.name != mirror.ID]
        assert files == [folder / "checkpoints/9/about/data"]
        train(folder, 10, 10)
    assert {f"{STEPS}/9/about/data", f"{STEPS}/10/digests.json"} <= store.names(RUN)
    assert others - {"checkpoints/note"} <= store.names(RUN)


def test_a_damaged_checkpoint_is_fetched_beside_the_one_before(store):
    with mirrored(RUN, "") as folder:
        train(folder, 1, 3)
    remote.write(f"{RUN}/checkpoints/3/about/data", b"about of step 4")
    with mirrored(RUN, "") as folder:
        assert {path.name for path in (folder / STEPS).iterdir()} == {"2", "3"}
        check_digests(folder / STEPS / "2")


def test_a_run_that_lost_its_lock_writes_no_more(store):
    with pytest.raises(remote_lock.LockLost), mirrored(RUN, "") as folder:
        train(folder, 1, 1)
        mirror.mirror_of(folder / STEPS)._lock._other = "process 7 on other"
        store.written.clear()
        with pytest.raises(remote_lock.LockLost):
            mirror.mirror_of(folder / STEPS).flush()
    assert store.written == []


def test_checkpoints_are_saved_when_they_are_at_the_url(store):
    state, config = small_state(True), load_config("tiny")
    with mirrored(RUN, "") as folder, Checkpoints(folder / STEPS) as checkpoints:
        for step in (1, 2):
            checkpoints.save(state._replace(step=jax.numpy.int32(step)), config, CATEGORIES)
        assert checkpoints.saved() == 0
        checkpoints.wait()
        assert checkpoints.saved() == 2
    forget()
    found = find_step_folder(RUN)
    assert found.name == "2" and read_metadata(RUN).step == read_metadata(f"{RUN}/checkpoints/1").step + 1
    remote.remove([f"{RUN}/checkpoints/2/digests.json"])  # it is being written
    forget()
    assert find_step_folder(RUN).name == "1"
    with mirrored(RUN, "") as folder, Checkpoints(folder / STEPS) as checkpoints:
        restored, _ = checkpoints.restore_newest(state, lambda metadata: None)
        assert int(restored.step) == 1
        checkpoints.save(restored._replace(step=jax.numpy.int32(3)), config, CATEGORIES)
    assert newest_there() == 3


def test_a_checkpoint_that_one_of_several_processes_wrote_is_restored_by_one(tmp_path):
    """It holds the data of the random key, not the key."""
    state = small_state(True)._replace(step=jax.numpy.int32(2))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints._alone = True
        checkpoints.save(state, load_config("tiny"), CATEGORIES)
    with Checkpoints(tmp_path) as checkpoints:
        restored, _ = checkpoints.restore_newest(state, lambda metadata: None)
    assert restored.key.dtype == state.key.dtype
    assert jax.random.key_data(restored.key).tolist() == jax.random.key_data(state.key).tolist()


def test_a_checkpoint_that_is_not_there_is_named_by_its_url(store):
    with pytest.raises(UserError) as caught:
        find_step_folder(f"{BUCKET}/none")
    assert str(caught.value).startswith(f"{BUCKET}/none: no such checkpoint folder; ")
