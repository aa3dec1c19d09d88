"""Runs that tests of training share."""

import pytest

from masktrack_jax.data.splits import training_split
from masktrack_jax.training.run import train
from tests.helpers.configs import load_config
from tests.helpers.training import Run, compiled_once, plain


@pytest.fixture
def config(tiny_data):
    """configs/tiny.py on the tiny data."""
    config = load_config("tiny")
    config.data.train_annotations = config.data.val_annotations = str(tiny_data)
    return config


@pytest.fixture(scope="session")
def finished(tiny_data, tmp_path_factory):
    """The four steps of configs/tiny.py without a break: the folder, the state and the categories."""
    config = load_config("tiny")
    config.data.train_annotations = str(tiny_data)
    dataset, folder = training_split(config), tmp_path_factory.mktemp("finished")
    with compiled_once("finished"):
        return folder, plain(train(config, dataset, folder)), dataset.labels


@pytest.fixture(scope="session")
def run(tiny_data):
    """`run(folder)` trains six steps in which something may happen."""
    return Run(tiny_data)


@pytest.fixture(scope="session")
def whole(run, tmp_path_factory):
    """Six steps without a fault and without validation: the folder and the state."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder)
