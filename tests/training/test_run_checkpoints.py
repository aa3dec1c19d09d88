"""Checkpoints of a run: damaged ones are set aside and old ones deleted; a full disk keeps the last one."""

import signal
import subprocess
import sys

import pytest

from masktrack_jax.checkpoints.metadata import read_metadata
from masktrack_jax.runtime.errors import UserError
from tests.helpers.configs import ROOT
from tests.helpers.training import assert_same_end, saved_steps, signalled


def largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "parameters cut off": lambda folder: truncate(largest(folder / "variables")),
    "parameters all zeros": lambda folder: largest(folder / "variables").write_bytes(bytes(10_000)),
    "optimiser missing": lambda folder: largest(folder / "progress").unlink(),
    "description cut off": lambda folder: truncate(folder / "about" / "metadata"),
    "description missing": lambda folder: (folder / "about" / "metadata").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(run, whole, tmp_path, damage, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path, signalled(4, signal.SIGTERM))
    DAMAGES[damage](tmp_path / "checkpoints" / "4")
    capsys.readouterr()
    state = run(tmp_path)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "damaged-4" in line)
    assert line.startswith(f"{tmp_path / 'checkpoints' / '4'}") and len(line) < 700
    assert saved_steps(tmp_path) == {"2", "damaged-4", "4", "6"}
    assert_same_end(tmp_path, state, whole)


def test_nothing_is_touched_if_all_checkpoints_are_damaged(run, tmp_path):
    with pytest.raises(SystemExit):
        run(tmp_path, signalled(4, signal.SIGTERM))
    for step in "24":
        truncate(largest(tmp_path / "checkpoints" / step / "variables"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"checkpoints/4: is damaged \(variables/") as caught:
        run(tmp_path)
    assert "\n" not in str(caught.value) and sorted(tmp_path.rglob("*")) == before


def test_old_checkpoints_are_deleted(run, tmp_path):
    run(tmp_path, keep_last=1)
    assert saved_steps(tmp_path) == {"6"}


FULL = """
import resource, sys
from tests import conftest
from tests.helpers.training import Run
from masktrack_jax.checkpoints.steps import Checkpoints
run = Run(sys.argv[1])
save = Checkpoints.save
def smaller(checkpoints, state, *rest):
    if int(state.step) == 4:
        checkpoints.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    save(checkpoints, state, *rest)
Checkpoints.save = smaller
from masktrack_jax.runtime import cli
cli.run(run, __import__("pathlib").Path(sys.argv[2]))
"""


def test_a_full_disk_is_one_line_and_leaves_the_checkpoint_before(run, whole, tmp_path):
    """From the second checkpoint on no file may exceed 20 kB; Orbax's threads keep quiet about it."""
    command = [sys.executable, "-c", FULL, str(run.data), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert done.returncode == 1, done.stderr[-3000:]
    folder = tmp_path / "run" / "checkpoints"
    line = f"error: {folder}: a checkpoint cannot be written (File too large); free"
    said = [said for said in done.stderr.splitlines() if "the training step for" not in said]
    assert len(said) == 1 and said[0].startswith(line), done.stderr[-3000:]
    assert read_metadata(tmp_path / "run").step == 2
    assert_same_end(tmp_path / "run", run(tmp_path / "run"), whole)
