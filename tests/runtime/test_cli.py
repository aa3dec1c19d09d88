"""Errors of the file system and of flags become one line; a command ends at a signal."""

import subprocess
import sys

import pytest
from absl import flags

from masktrack_jax.runtime.cli import parse_flags, run
from masktrack_jax.runtime.errors import UserError


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
