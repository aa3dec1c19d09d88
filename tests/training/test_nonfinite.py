"""Steps with a non-finite loss and frames that cannot be read stop the run, or are skipped and counted."""

import shutil

import jax
import numpy as np
import pytest

from masktrack_jax.checkpoints import store
from masktrack_jax.checkpoints.metadata import read_metadata
from masktrack_jax.data.splits import training_split
from masktrack_jax.models.masktrack_rcnn import build_model
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.training import nonfinite
from tests.helpers.training import Run, assert_same_end, places, poisoned, rows, same, tiny


@pytest.mark.parametrize("bad", [3, 4, 6])
def test_a_loss_that_is_not_finite_stops(run, whole, tmp_path, bad):
    """Its pairs are named and the state before it saved; with correct frames the run then ends as usual."""
    seen = {}

    def change(step, batch):
        seen[step] = batch
        return poisoned(bad)(step, batch)

    with pytest.raises(UserError, match=rf"step {bad}: loss_\w+ is nan, .*train\.on_nan=skip") as caught:
        run(tmp_path, change)
    names = [video.name for video in training_split(tiny(run.data)).videos]
    for video, key, reference in places(seen[bad]):
        assert f"{names[video]} {key} and {reference}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert read_metadata(tmp_path).step == bad - 1
    assert_same_end(tmp_path, run(tmp_path), whole)


def test_bad_steps_can_be_skipped(run, whole, tmp_path, caplog):
    state = run(tmp_path, poisoned(2, 4, 5, 6), on_nan="skip")
    assert int(state.step) == 6 and all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))
    first, second = rows(tmp_path)
    assert (first["skipped_steps"], second["skipped_steps"]) == (1, 3)
    assert np.isfinite(first["loss"]) and second["loss"] is None
    logged = [r.getMessage() for r in caplog.records if r.name == nonfinite.__name__]
    assert [line.split(":")[1] for line in logged] == [f" step {step}" for step in (2, 4, 5, 6)]
    # Step 1 is the same, and a bad step changes nothing.
    with pytest.raises(UserError):
        run(tmp_path / "stopped", poisoned(2))
    skipped = run(tmp_path / "skipped", poisoned(2), on_nan="skip", steps=2)
    stopped = store.load_variables(tmp_path / "stopped", build_model(tiny(run.data), 6))
    assert same(stopped["params"], skipped.params)


def test_bad_steps_in_a_row_end_the_run(run, tmp_path, monkeypatch):
    monkeypatch.setattr(nonfinite, "IN_A_ROW", 3)
    with pytest.raises(UserError, match=r"step 4: .*so were the previous 2 steps"):
        run(tmp_path, poisoned(*range(2, 9)), on_nan="skip", steps=8)


def test_a_bad_frame_stops_or_is_counted(run, tiny_data, tmp_path, caplog):
    """`data.on_error`, with which the same command resumes after it has changed."""
    shutil.copytree(tiny_data.parent, tmp_path / "data")
    other = Run(tmp_path / "data" / tiny_data.name)
    for frame in sorted((tmp_path / "data" / "JPEGImages").glob("*/00002.jpg")):
        frame.write_bytes(frame.read_bytes()[:300])
    with pytest.raises(UserError, match=r"00002\.jpg: cannot be read as an image"):
        other(tmp_path / "run")
    assert int(other(tmp_path / "run", on_error="skip").step) == 6
    assert sum(row["skipped_pairs"] for row in rows(tmp_path / "run")) > 3
    assert any("00002.jpg" in record.getMessage() for record in caplog.records)
