"""Runs at gs:// and s3:// URLs, with gcsfs and s3fs, on emulators of both stores.

Skipped where these are not installed; docs/storage.md names them.
"""

import importlib.util
import os
import socket
import subprocess
import sys
import time

import pytest

from masktrack_jax.checkpoints.mirror import STEPS, mirror_of, mirrored
from masktrack_jax.runtime import copies, remote, remote_lock
from masktrack_jax.runtime.errors import UserError

NEEDS = {"s3": ("s3fs", "moto", "flask"), "gs": ("gcsfs", "gcp_storage_emulator")}
SERVERS = {
    "s3": ["-m", "moto.server", "-p", "{port}"],
    "gs": [
        "-m",
        "gcp_storage_emulator",
        "start",
        "--port",
        "{port}",
        "--in-memory",
        "--default-bucket",
        "bucket",
    ],
}


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module", params=NEEDS)
def url(request, tmp_path_factory):
    """The URL of an empty bucket of an emulator."""
    scheme = request.param
    if missing := [name for name in NEEDS[scheme] if importlib.util.find_spec(name) is None]:
        pytest.skip(f"{scheme}:// needs {', '.join(missing)}, see docs/storage.md")
    port = free_port()
    settings = {
        "MASKTRACK_REMOTE": str(tmp_path_factory.mktemp("remote")),
        "AWS_ENDPOINT_URL": f"http://localhost:{port}",
        **{f"AWS_{name}": "x" for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")},
        "AWS_DEFAULT_REGION": "us-east-1",
        "STORAGE_EMULATOR_HOST": f"http://localhost:{port}",
        "FSSPEC_GS_TOKEN": "anon",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }
    command = [sys.executable, *(word.format(port=port) for word in SERVERS[scheme])]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        patch.setattr(remote_lock, "SETTLE", 0)
        patch.setattr(remote_lock, "BEAT", 0.2)
        server = subprocess.Popen(
            command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            until_it_answers(port)
            remote._store.cache_clear()
            if scheme == "s3":
                remote._store("s3").mkdir("bucket")
            yield f"{scheme}://bucket"
        finally:
            server.kill()
            server.wait()


def until_it_answers(port):
    for _ in range(300):
        with socket.socket() as tried:
            if tried.connect_ex(("localhost", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError


def test_objects_are_written_read_listed_and_deleted(url, tmp_path):
    large = bytes(range(256)) * 2**16  # 16 MiB: in several parts
    (tmp_path / "large").write_bytes(large)
    remote.put(tmp_path / "large", f"{url}/a/large")
    remote.write(f"{url}/a/b/ü 1", b"12")
    assert {name: entry.size for name, entry in remote.tree(f"{url}/a").items()} == {
        "large": 2**24,
        "b/ü 1": 2,
    }
    assert {name: entry.folder for name, entry in remote.listing(f"{url}/a").items()} == {
        "large": False,
        "b": True,
    }
    assert abs(remote.listing(f"{url}/a")["large"].time - time.time()) < 1000
    assert copies.fetched(copies.local(f"{url}/a/large")).read_bytes() == large
    assert remote.read(f"{url}/none") is None and remote.listing(f"{url}/none") == {}
    remote.remove([f"{url}/a/large", f"{url}/a/b/ü 1", f"{url}/none"])
    assert remote.tree(f"{url}/a") == {}


def test_a_bucket_that_does_not_exist_is_one_line(url):
    scheme = url.partition(":")[0]
    with pytest.raises(UserError, match="there is no such bucket"):
        remote.write(f"{scheme}://nobucket/x", b"")


def test_a_run_is_copied_resumed_and_locked(url):
    with mirrored(f"{url}/run", "use another --workdir") as folder:
        for step in (1, 2):
            (folder / STEPS / str(step)).mkdir(parents=True)
            (folder / STEPS / str(step) / "digests.json").write_text("{}")
            mirror_of(folder / STEPS).flush()
        with pytest.raises(UserError, match="is in use by process"), mirrored(f"{url}/run", ""):
            pass
    assert not folder.exists()
    with mirrored(f"{url}/run", "") as folder:
        assert (folder / STEPS / "2" / "digests.json").read_text() == "{}"
