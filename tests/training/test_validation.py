"""Validation during a run: it does not change the training, writes one row each time, and keeps the best."""

import json
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masktrack_jax.checkpoints import store
from masktrack_jax.checkpoints.metadata import Metadata, read_metadata, read_scores
from masktrack_jax.inference.split import evaluate_split, open_split
from masktrack_jax.models.masktrack_rcnn import build_model
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.training.validation import recover_variables, replace_variables, temporary_paths
from tests.helpers.checkpoints import CATEGORIES, one_line
from tests.helpers.configs import load_config
from tests.helpers.training import Crash, assert_same_end, crash_in, same, saved_steps, signalled, tiny


def scored(*values):
    """`evaluate` that returns these AP in turn, or raises them if they are exceptions."""
    values = iter(values)

    def evaluate(variables):
        value = next(values)
        if isinstance(value, Exception):
            raise value
        return {"AP": value, "IDSW": 3, "per_category": {}}

    return evaluate


def table(folder):
    rows = [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]
    return [(row["step"], row["AP"]) for row in rows]


def kept(run, folder):
    """The variables of `folder`, and their step."""
    about = read_metadata(folder)
    model = build_model(about.config, len(about.categories))
    return jax.device_get(store.load_variables(folder, model)), about.step


def test_the_best_is_kept_and_nothing_else_changes(run, whole, tmp_path, monkeypatch):
    """With a network that really segments the validation split between the steps, on one of the devices."""
    values = scored(0.3, 0.5, 0.4)
    config = tiny(run.data)
    categories = read_metadata(whole[0]).categories
    split = open_split(config, categories)

    def evaluate(variables):
        with monkeypatch.context() as patch:
            patch.setattr(jax, "local_devices", lambda: jax.devices()[:1])  # each compiles the network
            output = tmp_path / "scores" / "metrics.json"
            metrics = evaluate_split(config, split, categories, variables, output)
        return metrics | values(variables)

    state = run(tmp_path / "run", evaluate=evaluate, evaluate_every=2)
    assert_same_end(tmp_path / "run", state, whole)
    assert table(tmp_path / "run") == [(2, 0.3), (4, 0.5), (6, 0.4)]
    row = json.loads((tmp_path / "run" / "validation.jsonl").read_text().splitlines()[0])
    assert {"AP50", "HOTA"} < row.keys() and "per_category" not in row
    best, step = kept(run, tmp_path / "run" / "best")
    assert step == 4 and same(best, kept(run, whole[0] / "checkpoints" / "4")[0])
    assert not same(best["params"], state.params)
    assert read_metadata(tmp_path / "run").step == 6  # the newest


def test_also_after_the_last_step(run, tmp_path):
    run(tmp_path, evaluate=scored(0.2, 0.2), evaluate_every=4)
    assert table(tmp_path) == [(4, 0.2), (6, 0.2)]
    assert read_metadata(tmp_path / "best").step == 4  # the first of equals
    before = (tmp_path / "validation.jsonl").read_text()
    run(tmp_path, evaluate=scored(), evaluate_every=4)  # nothing is left to do
    assert (tmp_path / "validation.jsonl").read_text() == before


# What interrupts the run, and the scores of the evaluations before and after.
BREAKS = {
    "a signal in a step that is scored": (signalled(4, signal.SIGTERM), [0.3], [0.5, 0.4]),
    "a signal in another step": (signalled(5, signal.SIGTERM), [0.3, 0.5], [0.4]),
    "a crash between two checkpoints": (crash_in(6), [0.3, 0.5], [0.4]),
    "a crash while it scores": (crash_in(9), [0.3, Crash()], [0.5, 0.4]),
    "a signal in the last step": (signalled(6, signal.SIGTERM), [0.3, 0.5], [0.4]),
}


@pytest.mark.parametrize("name", BREAKS)
def test_no_row_is_missing_or_repeated(run, whole, tmp_path, name):
    change, before, after = BREAKS[name]
    with pytest.raises((Crash, SystemExit)):
        run(tmp_path, change, evaluate=scored(*before), evaluate_every=2, checkpoint_every=4)
    state = run(tmp_path, evaluate=scored(*after), evaluate_every=2, checkpoint_every=4)
    assert table(tmp_path) == [(2, 0.3), (4, 0.5), (6, 0.4)]
    assert read_metadata(tmp_path / "best").step == 4
    assert_same_end(tmp_path, state, whole)


def test_resuming_from_before_an_evaluation(run, whole, tmp_path):
    """The checkpoints after step 2 are gone, and so are their rows, but not the best parameters."""
    with pytest.raises(SystemExit):
        run(tmp_path, signalled(5, signal.SIGTERM), evaluate=scored(0.3, 0.5), evaluate_every=2)
    for step in "45":
        shutil.rmtree(tmp_path / "checkpoints" / step)
    state = run(tmp_path, evaluate=scored(0.45, 0.4), evaluate_every=2)
    assert table(tmp_path) == [(2, 0.3), (4, 0.45), (6, 0.4)]
    assert read_scores(tmp_path / "best")["AP"] == 0.5
    assert_same_end(tmp_path, state, whole)
    # A new run in the folder ignores the best of the old one.
    shutil.rmtree(tmp_path / "checkpoints")
    run(tmp_path, evaluate=scored(0.1), evaluate_every=6)
    assert table(tmp_path) == [(6, 0.1)] and read_scores(tmp_path / "best")["AP"] == 0.1


def test_scored_states_are_saved_and_the_best_only_if_wanted(run, tmp_path):
    run(tmp_path, evaluate=scored(0.3, 0.4), evaluate_every=3, checkpoint_every=6, keep_best=False)
    assert saved_steps(tmp_path) == {"3", "6"} and not (tmp_path / "best").exists()
    assert np.isclose(table(tmp_path)[0][1], 0.3)


def test_a_validation_split_is_needed(run, tmp_path):
    with pytest.raises(UserError, match=r"^config\.train\.evaluate_every: .*val_annotations"):
        run(tmp_path, evaluate_every=2)


def test_variables_are_replaced_atomically(tmp_path, monkeypatch):
    path, config = tmp_path / "best", load_config("tiny")

    def replace(step):
        variables = {"params": {"w": jnp.full(3, float(step))}}
        replace_variables(path, variables, Metadata(config, CATEGORIES, step), {"AP": 0.5})

    def assert_holds(step):
        assert (read_metadata(path).step, read_scores(path)) == (step, {"AP": 0.5})
        stored = store.read_variables(path, {"params": {"w": jnp.zeros(3)}})
        np.testing.assert_array_equal(stored["params"]["w"], step)
        assert [other.name for other in tmp_path.iterdir()] == ["best"]

    for step in (3, 7):
        replace(step)
        assert_holds(step)

    # Killed between the two renames, and before the old ones were gone.
    path.rename(temporary_paths(path)[1])
    recover_variables(path)
    assert_holds(7)
    shutil.copytree(path, temporary_paths(path)[0])
    recover_variables(path)
    assert read_metadata(path).step == 7
    shutil.rmtree(temporary_paths(path)[0])

    def refuse(*_):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_variables", refuse)
        with pytest.raises(UserError, match=r"best: cannot be written \(No space left") as error:
            replace(9)
    one_line(error)
    assert_holds(7)
    (path / "about" / "metadata").write_text("{")
    assert read_scores(path) == read_scores(tmp_path / "none") == {}
