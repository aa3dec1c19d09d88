"""A profile holds the steps it should, as JAX's own reader sees them."""

import jax
import jax.numpy as jnp

from masktrack_jax.training import profiling
from masktrack_jax.training.profiling import Profile


def steps_of(folder):
    """The numbers of the steps in the only trace below a folder."""
    (path,) = folder.glob("plugins/profile/*/*.xplane.pb")
    events = (
        event
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes
        for line in plane.lines
        for event in line.events
    )
    return sorted(dict(event.stats)["step_num"] for event in events if event.name == "train")


def run(profile, count):
    for number in range(7, 7 + count):
        with profile.step(number):
            metrics = {"loss": jnp.sum(jnp.arange(1000.0))}
        profile.finish(metrics)
    profile.close()


def test_the_steps_after_the_first_ones_are_traced(tmp_path, capsys):
    run(Profile(tmp_path / "profile", 3), 7)
    assert steps_of(tmp_path / "profile") == [9, 10, 11]
    assert capsys.readouterr().out.startswith(f"profile of 3 steps: {tmp_path}/profile, for tensorboard")


def test_a_run_that_ends_before_leaves_what_it_has(tmp_path, capsys):
    run(Profile(tmp_path / "profile", 30), 4)
    assert steps_of(tmp_path / "profile") == [9, 10]
    assert capsys.readouterr().out.startswith("profile of 2 steps: ")


def test_no_steps_and_other_processes_trace_nothing(tmp_path, monkeypatch):
    run(Profile(tmp_path, 0), 4)
    monkeypatch.setattr(profiling, "is_first", lambda: False)
    run(Profile(tmp_path, 3), 4)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_does_not_end_the_run(tmp_path, capsys):
    (tmp_path / "file").touch()
    run(Profile(tmp_path / "file" / "profile", 1), 4)
    said = capsys.readouterr()
    assert f"{tmp_path}/file/profile: the trace cannot be written" in said.err and not said.out
    assert said.err.count("\n") == 1
