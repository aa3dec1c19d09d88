"""Randomly changed metadata of checkpoints: each is read, or rejected with a one-line error."""

import json

import pytest
from hypothesis import given

from masktrack_jax.checkpoints.metadata import Metadata, read_metadata
from masktrack_jax.config.base import base_config
from masktrack_jax.models.masktrack_rcnn import build_model
from tests.helpers.mutations import changed, refused_or


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def description():
    config = base_config()
    return json.loads(json.dumps(Metadata(config, [(1, "a"), (4, "b")], 3).to_json()))


@given(changed(description()))
def test_descriptions_of_checkpoints(folder, content):
    """What is read has every key of a config, each of the kind that it must be."""
    (folder / "step" / "about").mkdir(parents=True, exist_ok=True)
    (folder / "step" / "about" / "metadata").write_text(json.dumps(content))
    about = refused_or(read_metadata, folder / "step")
    if about is not None:
        assert all(isinstance(name, str) for _, name in about.categories)
        build_model(about.config, max(len(about.categories), 1))
