"""A store for tests: fsspec's in memory, at memory:// URLs, which can fail and records what is written."""

from collections.abc import Callable

import fsspec

from masktrack_jax.runtime import copies, remote

BUCKET = "memory://bucket"
CHANGES = ("put_file", "pipe_file", "rm_file")


class Store:
    """fsspec's file system in memory. `before(name, path)` is called before `CHANGES`, and may raise."""

    def __init__(self) -> None:
        self.files = fsspec.filesystem("memory")
        self.files.store.clear()
        self.files.pseudo_dirs[:] = [""]
        self.before: Callable[[str, str], object] = lambda name, path: None
        self.written: list[str] = []

    def __getattr__(self, name):
        call = getattr(self.files, name)
        if name not in CHANGES:
            return call

        def change(*arguments, **options):
            path = arguments[1] if name == "put_file" else arguments[0]
            self.before(name, path)
            self.written += [path] if name != "rm_file" else []
            return call(*arguments, **options)

        return change

    def names(self, url: str) -> set[str]:
        """All objects below a URL, without the lock and the hidden files."""
        return {name for name in remote.tree(url) if "/." not in f"/{name}"}


def memory_store(monkeypatch, folder) -> Store:
    """A new empty store; copies of its files are made in `folder`."""
    store = Store()
    monkeypatch.setitem(remote.PACKAGES, "memory", "fsspec")
    monkeypatch.setenv("MASKTRACK_REMOTE", str(folder))
    monkeypatch.setattr(remote, "_store", lambda scheme: store)
    forget()
    return store


def forget() -> None:
    """Forget what was listed, as another process that starts now."""
    copies._listing.cache_clear()
    copies._single.cache_clear()


def upload(folder, url) -> None:
    """Copy a local folder to a URL."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            remote.put(path, f"{url}/{path.relative_to(folder).as_posix()}")
    forget()
