"""Randomly changed metadata and digests of checkpoints: each is read, or rejected with a one-line error."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masktrack_jax.checkpoints.digests import NAME, check_digests, write_digests
from masktrack_jax.checkpoints.metadata import Metadata, read_metadata
from masktrack_jax.config.base import base_config
from masktrack_jax.models.masktrack_rcnn import build_model
from tests.helpers.mutations import VALUES, changed, cut_or_flipped, refused_or


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


def listing(folder):
    """A step folder with two files and their digests."""
    for name in ("a/x", "b/y"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    write_digests(folder)
    return (folder / NAME).read_bytes()


with tempfile.TemporaryDirectory() as made:
    DIGESTS = listing(Path(made))
LISTINGS = (
    (changed(json.loads(DIGESTS)) | VALUES).map(lambda value: json.dumps(value).encode())
    | cut_or_flipped(DIGESTS)
    | st.binary(max_size=50)
)


@given(LISTINGS)
def test_digests_of_checkpoints(folder, content):
    """A list is accepted only if it is the one that was written."""
    listing(folder / "listed")
    (folder / "listed" / NAME).write_bytes(content)
    if refused_or(lambda path: check_digests(path) or "accepted", folder / "listed"):
        assert json.loads(content) == json.loads(DIGESTS)
