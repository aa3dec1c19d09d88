"""The folder of the compilation cache, against paths written by hand, and errors of the file system."""

import io
import sys
from pathlib import Path

import pytest

from masktrack_jax.runtime import cli
from masktrack_jax.runtime.cli import check_cache, keep_programs

CACHE = "JAX_COMPILATION_CACHE_DIR"


@pytest.mark.parametrize(
    "environment, folder",
    [
        ({"XDG_CACHE_HOME": "/x"}, "/x/masktrack_jax"),
        ({"XDG_CACHE_HOME": "/x", "MASKTRACK_CACHE": ""}, "/x/masktrack_jax"),
        ({}, str(Path.home() / ".cache" / "masktrack_jax")),
        ({"XDG_CACHE_HOME": "/x", "MASKTRACK_CACHE": "/y"}, "/y"),
    ],
)
def test_programs_are_kept_by_kind_of_machine(environment, folder):
    keep_programs(environment)
    assert str(Path(environment[CACHE]).parent) == folder
    assert environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0.2"


@pytest.mark.parametrize("environment", [{"MASKTRACK_CACHE": "off"}, {CACHE: "/z", "MASKTRACK_CACHE": "/y"}])
def test_off_and_jaxs_own_setting_hold(environment):
    before = dict(environment)
    keep_programs(environment)
    assert environment == before


def test_a_cache_that_cannot_be_written_is_one_line_and_no_obstacle(tmp_path, capsys):
    (tmp_path / "file").touch()
    environment = {CACHE: str(tmp_path / "file" / "jax")}
    check_cache(environment)
    line = capsys.readouterr().err
    assert (
        line.startswith(f"{tmp_path}/file/jax: cannot be written to (Not a directory)")
        and CACHE not in environment
    )
    assert line.count("\n") == 1
    environment = {CACHE: str(tmp_path / "new")}
    check_cache(environment)
    assert (tmp_path / "new").is_dir() and CACHE in environment and not capsys.readouterr().err
    environment = {CACHE: "gs://bucket/jax"}
    check_cache(environment)
    assert CACHE in environment


def test_an_error_of_the_file_system_is_one_line(tmp_path, capsys):
    for path in (tmp_path / ("a" * 300), tmp_path / "gone\n"):
        with pytest.raises(SystemExit):
            cli.run(path.stat)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"error: {tmp_path}/{'a' * 300}: File name too long; check the path",
        f"error: {tmp_path}/gone\\n: No such file or directory; check the path",
    ]
    with pytest.raises(OSError, match="of no file"):
        cli.run(lambda: (_ for _ in ()).throw(OSError("of no file")))


def test_a_terminal_of_any_encoding_is_enough(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    cli.run(lambda: print("2 × \udcff", flush=True))
    assert terminal.buffer.getvalue() == rb"2 \xd7 \udcff" + b"\n"
