"""Steps of a run that were copied, linked, mixed or left incomplete by people and their tools."""

import os
import shutil

import jax
import pytest

from masktrack_jax.checkpoints.metadata import find_step_folder, read_metadata
from masktrack_jax.checkpoints.steps import Checkpoints
from masktrack_jax.runtime.errors import UserError
from tests.checkpoints.test_store import small_state
from tests.helpers.checkpoints import CATEGORIES, one_line
from tests.helpers.configs import load_config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The checkpoints of steps 3 and 4."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        for step in (3, 4):
            state = small_state(True)._replace(step=jax.numpy.int32(step))
            checkpoints.save(state, load_config("tiny"), CATEGORIES)
    return folder


@pytest.fixture
def steps(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run" / "checkpoints")


def resumed(steps):
    """The step from which a run resumes."""
    with Checkpoints(steps) as checkpoints:
        return int(checkpoints.restore_newest(small_state(True), lambda metadata: None)[0].step)


def copy_the_older(steps):
    shutil.rmtree(steps / "4")
    shutil.copytree(steps / "3", steps / "4")


def mix(steps):
    shutil.rmtree(steps / "4" / "variables")
    shutil.copytree(steps / "3" / "variables", steps / "4" / "variables")
    (steps / "4" / "digests.json").unlink()


def make_pipe(steps):
    (steps / "4" / "digests.json").unlink()
    os.mkfifo(steps / "4" / "digests.json")


@pytest.mark.parametrize(
    "change, problem",
    [
        (copy_the_older, "it holds step 3, not 4"),
        (mix, "digests.json is missing"),
        (make_pipe, "digests.json: .*is no file"),
    ],
)
def test_a_step_that_is_not_what_it_says_is_set_aside(steps, capsys, change, problem):
    change(steps)
    with pytest.raises(UserError, match=problem) as error:
        read_metadata(steps.parent)
    one_line(error)
    assert resumed(steps) == 3
    assert "renamed to damaged-4, the run resumes" in capsys.readouterr().out


@pytest.mark.parametrize(
    "make",
    [lambda path: path.mkdir(), lambda path: path.write_text(""), lambda path: path.symlink_to("gone")],
)
def test_what_was_set_aside_before_stays(steps, make):
    make(steps / "damaged-4")
    copy_the_older(steps)
    assert resumed(steps) == 3
    assert os.path.lexists(steps / "damaged-4")
    assert (steps / "damaged-4.2" / "digests.json").exists()


def test_an_incomplete_newest_step_is_not_passed_over(steps):
    shutil.rmtree(steps / "4" / "about")
    with pytest.raises(
        UserError, match=r"4: is the newest step but holds no checkpoint; .* or give .*3"
    ) as error:
        find_step_folder(steps.parent)
    one_line(error)
    (steps / "²").mkdir()  # a digit, but no number
    shutil.rmtree(steps / "4")
    assert find_step_folder(steps.parent) == steps / "3"


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(UserError, match="checkpoints: cannot be written to"):
        Checkpoints(tmp_path / "checkpoints")
