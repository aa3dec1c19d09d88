"""The folder of the compilation cache, against paths written by hand, and errors of the file system."""

import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from masktrack_jax.runtime.cli import check_cache, keep_programs, parse_flags, run
from masktrack_jax.runtime.errors import UserError

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


def test_a_path_that_the_system_refuses_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run((tmp_path / ("x" * 300)).exists)
    line = capsys.readouterr().err
    assert ended.value.code == 1 and line.count("\n") == 1
    assert line.endswith("xxx: File name too long; give another path, or change its permissions\n")
    with pytest.raises(FileNotFoundError):
        run((tmp_path / "no").read_bytes)


@pytest.mark.parametrize("flag", ["--number=nan", "--number=inf", "--number=-inf"])
def test_a_number_is_finite(monkeypatch, flag):
    values = flags.FlagValues()
    flags.DEFINE_float("number", 1, "", lower_bound=0.1, flag_values=values)
    monkeypatch.setattr(flags, "FLAGS", values)
    with pytest.raises(UserError, match="number"):
        parse_flags(["x", flag])
    assert parse_flags(["x", "--number=2"]) == ["x"]
    with pytest.raises(UserError, match=r"--number: is given 2 times, and only the last"):
        parse_flags(["x", "--number=2", "--number=3"])


def test_a_command_ends_at_sigterm_and_removes_its_files(tmp_path):
    code = "import sys, time; from masktrack_jax.runtime import cli, files\ndef main():\n"
    code += "    with files.whole(sys.argv[1]) as partial:\n"
    code += "        partial.mkdir(); print('there', flush=True); time.sleep(60)\ncli.command(main)"
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path / "out"], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"there\n"
    process.terminate()
    assert process.wait(10) == 143
    assert not list(tmp_path.iterdir())
