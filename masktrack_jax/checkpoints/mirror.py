"""A run whose `--workdir` is a URL: it works in a local folder, whose files a thread copies to the URL.

Stores have neither renames nor appends nor locks. The local folder has them all, and the run goes on there
while the store does not answer. What is at the URL can be resumed from at any moment:

- A folder with `digests.json` is sealed (a checkpoint, or `best`). The seal is written when all other files
  are there, and deleted before they change. A folder of a step without a seal is not read.
- Rows (`ROWS`) are written whole. The rows up to a step are there before its checkpoint is sealed, and
  `best` before the row of its scores.

A run begins with the newest sealed checkpoint there, or continues in its local folder if that is of the same
run (`ID`) and not behind. `remote_lock` keeps other runs away.
"""

import contextlib
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax

from masktrack_jax.checkpoints.digests import NAME as SEAL
from masktrack_jax.checkpoints.digests import check_digests
from masktrack_jax.runtime import remote
from masktrack_jax.runtime.errors import UserError, one_line
from masktrack_jax.runtime.processes import barrier, is_first
from masktrack_jax.runtime.remote import StoreError
from masktrack_jax.runtime.remote_lock import LockLost, RemoteLock
from masktrack_jax.runtime.signals import Interruption

ID = ".masktrack-run"  # a random text, the same here and there, from the first start of a run on
STEPS, BEST = "checkpoints", "best"
ROWS = ("metrics.jsonl", "validation.jsonl")
SEALED = re.compile(rf"({STEPS}/[0-9]+|{BEST})/{re.escape(SEAL)}")
POLL, EVERY = 0.5, 60.0  # seconds between looks for a new checkpoint, and between copies of the other files
PATIENCE = 30.0  # seconds to try again at the end of a run
PAUSE = 5.0  # seconds between two tries
TURNS = 5  # tries in a row if a file is replaced while it is copied

_active: dict[Path, "Mirror"] = {}


def mirror_of(folder: Path) -> "Mirror | None":
    """The mirror of the run that has its checkpoints in `folder`; None for a local run."""
    return _active.get(folder.parent)


@contextlib.contextmanager
def mirrored(workdir: str, cure: str) -> Iterator[Path | str]:
    """Yields the folder to work in: `workdir`, or for a URL a local folder that is copied there.

    All processes of a run enter; the first one writes to the URL. Raises a UserError that ends with `cure` if
    another run is there.
    """
    if not remote.is_url(workdir):
        yield workdir
        return
    url, writes = workdir.rstrip("/"), is_first()
    folder = Path(remote.work(url, jax.process_index()))
    with (
        RemoteLock(url, cure) if writes else contextlib.nullcontext() as lock,
        contextlib.closing(_begun(url, folder, lock)) as mirror,
    ):
        _active[folder] = mirror
        try:
            yield folder
        except BaseException:
            with contextlib.suppress(UserError):  # the first error is the one to report
                mirror.flush()
            raise
        finally:
            del _active[folder]
        mirror.flush()
        barrier()
        remote.forget(folder)


def _begun(url: str, folder: Path, lock: RemoteLock | None) -> "Mirror":
    """The mirror of a run that begins; other processes begin with what the first one has brought there."""
    if lock is None:
        barrier()
    _begin(url, folder, writes=lock is not None)
    mirror = Mirror(url, folder, lock)
    if lock is not None:
        if jax.process_count() > 1:
            mirror.flush()
        barrier()
    barrier()
    return mirror


class Mirror:
    """Copies what a run writes to its local `folder` to `url`. Without a `lock` it writes nothing."""

    def __init__(self, url: str, folder: Path, lock: RemoteLock | None) -> None:
        self.url, self._folder, self._lock = url, folder, lock
        self._sent: dict[str, object] = {}  # the size and time of each loose file that is there
        self._seals: dict[str, bytes] = {}  # the seals that are there
        self._saved = 0  # the newest step that was copied
        self._sending, self._closed = threading.Lock(), threading.Event()
        self._problem: UserError | None = None  # of the last try
        self._given_up: UserError | None = None
        if lock:
            for name in remote.tree(url):
                if SEALED.fullmatch(name):
                    self._seals[name.removesuffix(f"/{SEAL}")] = remote.read(f"{url}/{name}") or b""
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._closed.set()

    def saved(self) -> int:
        """The newest step that was copied; 0 if there is none."""
        return self._saved

    def settle(self) -> None:
        """Wait until no file is being copied, unless the store fails: the run may then delete checkpoints.

        Raises a `LockLost` if another run has taken over.
        """
        if self._problem is None:
            with self._sending:
                pass
        if isinstance(self._problem, LockLost):
            raise self._problem

    def flush(self) -> None:
        """Copy all files. Raises a UserError if the store does not take them within `PATIENCE` seconds."""
        if not self._lock:
            return
        if self._given_up:
            raise self._given_up
        end = time.monotonic() + PATIENCE
        with Interruption(unsaved=lambda: f"files are being copied to {self.url}"):
            while (problem := self._try()) and not isinstance(problem, LockLost) and time.monotonic() < end:
                time.sleep(PAUSE)
        if problem:
            self._closed.set()
            if not isinstance(problem, LockLost):
                problem = StoreError(
                    f"{problem}; {self._kept()}, all is kept in the folder {remote.WORK} of {remote.root()}: "
                    "the same command resumes"
                )
            self._given_up = problem
            raise problem

    def _kept(self) -> str:
        steps = [_number(name) for name in list(self._seals) if name != BEST]
        return f"step {max(steps)} is saved there" if steps else "no checkpoint is saved there"

    def _run(self) -> None:
        sent = time.monotonic()
        while not self._closed.wait(PAUSE if self._problem else POLL):
            if self._problem or self._steps() - self._seals.keys() or time.monotonic() - sent > EVERY:
                before, now = self._problem, self._try()
                if isinstance(now, LockLost):
                    return
                if now and not before:
                    print(f"{now}; training goes on, and tries again", flush=True)
                if before and not now:
                    print(f"{self.url}: can be written to again; {self._kept()}", flush=True)
                sent = time.monotonic()

    def _try(self) -> UserError | None:
        with self._sending:
            for _ in range(TURNS):
                try:
                    self._send()
                    self._problem = None
                except UserError as error:
                    self._problem = error
                except FileNotFoundError:  # of a file that is replaced at this moment
                    continue
                except Exception as error:  # the thread lives on, and the end of the run reports it
                    self._problem = UserError(f"{self.url}: cannot be written ({one_line(error)})")
                break
            return self._problem

    def _steps(self) -> set[str]:
        """The local folders of steps that are complete, such as `checkpoints/4`."""
        found = [f"{STEPS}/{path.parent.name}" for path in self._folder.glob(f"{STEPS}/*/{SEAL}")]
        return {name for name in found if SEALED.fullmatch(f"{name}/{SEAL}")}

    def _send(self) -> None:
        assert self._lock is not None
        self._lock.check()
        # What must be there before something else is looked at after it: see the head of the file.
        steps = sorted(self._steps(), key=_number, reverse=True)  # the newest first: a signal may hurry
        new = [name for name in steps if self._seals.get(name) != (self._folder / name / SEAL).read_bytes()]
        states = {name: _state(self._folder / name) for name in self._loose()}
        changed = [name for name, state in states.items() if self._sent.get(name) != state]
        rows = {name: (self._folder / name).read_bytes() for name in changed if name in ROWS}
        remote.at_once(
            lambda name: remote.write(f"{self.url}/{name}", (self._folder / name).read_bytes()),
            [name for name in changed if name not in rows],
        )
        if (self._folder / BEST / SEAL).is_file():
            self._send_sealed(BEST)
        for name, content in rows.items():
            remote.write(f"{self.url}/{name}", content[: content.rfind(b"\n") + 1])
        self._sent.update({name: states[name] for name in changed})
        for name in new:
            self._send_sealed(name)
        if new:
            self._delete_other_steps()

    def _loose(self) -> Iterator[str]:
        """The names of files that are in no sealed folder and not hidden."""
        for top in self._folder.iterdir():
            for path in (top, *top.rglob("*")) if top.name not in (STEPS, BEST) else ():
                name = path.relative_to(self._folder)
                if path.is_file() and not any(part.startswith(".") for part in name.parts):
                    yield name.as_posix()

    def _send_sealed(self, name: str) -> None:
        """Copy a sealed folder, its seal last, if the seal differs from that at the URL."""
        folder, url = self._folder / name, f"{self.url}/{name}"
        seal = (folder / SEAL).read_bytes()
        if self._seals.get(name) == seal:
            return
        self._seals.pop(name, None)
        remote.remove([f"{url}/{SEAL}"])
        files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {SEAL}
        remote.at_once(lambda file: remote.put(folder / file, f"{url}/{file}"), sorted(files))
        if (folder / SEAL).read_bytes() != seal:
            return  # `best` was replaced meanwhile: it is sent again
        remote.remove([f"{url}/{file}" for file in remote.tree(url).keys() - files])
        remote.write(f"{url}/{SEAL}", seal)
        self._seals[name] = seal
        self._saved = max(self._saved, 0 if name == BEST else _number(name))

    def _delete_other_steps(self) -> None:
        """Delete the checkpoints that the run has deleted, and parts of older ones; their seals first."""
        here = {path.name for path in (self._folder / STEPS).iterdir()}
        there = remote.tree(f"{self.url}/{STEPS}")
        old = [f"{STEPS}/{name}" for name in there if name.split("/")[0] not in here]
        for group in (True, False):
            remote.remove([f"{self.url}/{name}" for name in old if name.endswith(f"/{SEAL}") == group])
        for name in {name.rpartition("/")[0] for name in old}:
            self._seals.pop(name, None)


def _state(path: Path) -> object:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _number(name: str) -> int:
    """The step of a folder such as `checkpoints/4`."""
    return int(name.rpartition("/")[2])


def _begin(url: str, folder: Path, writes: bool) -> None:
    """Bring the local folder to the state at the URL, unless it is of the same run and not behind."""
    there, identity = remote.tree(url), remote.read(f"{url}/{ID}")
    # Without an identity somebody has copied a run there, perhaps one whose checkpoints have no seals.
    steps = _steps_of(there, sealed=identity is not None)
    here = _steps_of([path.relative_to(folder).as_posix() for path in folder.glob(f"{STEPS}/*/{SEAL}")])
    known = identity and (folder / ID).is_file() and (folder / ID).read_bytes() == identity
    if known and max(here, default=0) >= max(steps, default=0):
        if here:
            print(f"{url}: holds step {max(steps, default=0)} of this run, this machine step {max(here)}")
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    if writes and identity is None:
        identity = uuid.uuid4().hex.encode()
        remote.write(f"{url}/{ID}", identity)
    _get(url, [name for name in there if name.startswith(f"{BEST}/") or name in ROWS], folder)
    for step in steps:
        print(f"{url}: fetching the checkpoint of step {step}")
        name = f"{STEPS}/{step}"
        _get(url, [other for other in there if other.startswith(f"{name}/")], folder)
        try:
            check_digests(folder / name)
            break
        except UserError:  # kept for the run, which reports it, and goes on with the one before
            continue
    (folder / ID).write_bytes(identity or b"")


def _steps_of(names: Iterable[str], sealed: bool = True) -> list[int]:
    """The steps that have files with these names, or seals among them; the newest first."""
    form = re.compile(rf"{STEPS}/([0-9]+)/{re.escape(SEAL) if sealed else '.*'}")
    return sorted({int(found[1]) for name in names if (found := form.fullmatch(name))}, reverse=True)


def _get(url: str, names: list[str], folder: Path) -> None:
    remote.at_once(lambda name: remote.get(f"{url}/{name}", folder / name), names)
