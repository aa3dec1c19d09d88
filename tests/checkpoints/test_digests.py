"""Every changed bit of a checkpoint is noticed before its values are used; others are not checked."""

import json
import random

import jax
import numpy as np
import pytest

from masktrack_jax.checkpoints import store
from masktrack_jax.checkpoints.digests import NAME, check_digests, write_digests
from masktrack_jax.checkpoints.metadata import Metadata, read_metadata
from masktrack_jax.checkpoints.steps import Checkpoints
from masktrack_jax.inference.load import PRETRAINED
from masktrack_jax.runtime.errors import UserError
from tests.checkpoints.test_store import small_state
from tests.helpers.checkpoints import CATEGORIES, one_line
from tests.helpers.configs import load_config

VALUES = {"params": {"a": np.arange(12, dtype=np.float32), "b": np.float32([1.5, -0.0])}}
FLIPS = 200


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digests") / "weights"
    store.write_variables(folder, VALUES, Metadata(load_config("tiny"), CATEGORIES, 11))
    return folder


def flip(path, bit):
    """Flip a bit of a file; called twice it restores the file."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def load(folder):
    """Everything that inference reads."""
    return read_metadata(folder), store.read_variables(folder, VALUES)


def test_no_flipped_bit_is_read(weights):
    files = [
        path for item in ("variables", "about") for path in (weights / item).rglob("*") if path.is_file()
    ]
    files.append(weights / NAME)
    sizes = [8 * path.stat().st_size for path in files]
    draw = random.Random(0)
    for number in range(FLIPS):
        # Each file, and places drawn from all bits.
        path = files[number] if number < len(files) else draw.choices(files, sizes)[0]
        bit = draw.randrange(8 * path.stat().st_size)
        flip(path, bit)
        with pytest.raises(UserError) as caught:
            check_digests(weights, ["variables", "about"])
        assert one_line(caught).startswith(f"{weights}: is damaged (")
        flip(path, bit)
    jax.tree.map(np.testing.assert_array_equal, load(weights)[1], VALUES)


@pytest.mark.parametrize("item, named", [("variables", "variables/"), ("about", "about/metadata")])
def test_readers_compare_digests(weights, item, named):
    path = max(
        (path for path in (weights / item).rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )
    flip(path, 77)
    with pytest.raises(UserError, match=f"is damaged \\({named}.* differs from its digest"):
        load(weights)
    with pytest.raises(UserError, match="is damaged"):
        store.load_matching(weights, VALUES, CATEGORIES, ())
    flip(path, 77)
    path.rename(path.with_suffix(".moved"))
    with pytest.raises(UserError, match=r"is damaged .* cannot be read .No such file"):
        load(weights)
    path.with_suffix(".moved").rename(path)


def test_a_checkpoint_without_digests_is_read(weights):
    digests, about = weights / NAME, weights / "about" / "metadata"
    contents = {path: path.read_bytes() for path in (digests, about)}
    digests.unlink()
    with pytest.raises(UserError, match=r"digests\.json is missing"):
        load(weights)
    about.write_text(json.dumps({**json.loads(contents[about]), "digests": False}))  # as older versions wrote
    jax.tree.map(np.testing.assert_array_equal, load(weights)[1], VALUES)
    for path, content in contents.items():
        path.write_bytes(content)


def test_a_bad_step_is_set_aside_and_a_file_of_anyone_is_no_fault(tmp_path, capsys):
    config = load_config("tiny")
    states = [small_state(True, seed) for seed in range(2)]
    with Checkpoints(tmp_path, keep=5) as checkpoints:
        for state in states:
            checkpoints.save(state, config, CATEGORIES)
        checkpoints.wait()
        assert checkpoints.saved() == 4
    listed = json.loads((tmp_path / "4" / NAME).read_text())["sha256"]
    assert {name.split("/")[0] for name in listed} == {"variables", "progress", "about"}
    (tmp_path / "4" / "variables" / ".DS_Store").write_text("x")
    check_digests(tmp_path / "4")
    name = max(listed, key=lambda name: (name.startswith("progress"), (tmp_path / "4" / name).stat().st_size))
    flip(tmp_path / "4" / name, 1234)
    with Checkpoints(tmp_path, keep=5) as checkpoints:
        restored, _ = checkpoints.restore_newest(states[1], lambda _: None)
    assert int(restored.step) == 3 and (tmp_path / "damaged-4").is_dir()
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and f"{name} differs from its digest" in out and "damaged-4" in out


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"sha256": 3}',
        b'{"sha256": {"../../etc/hosts": "' + b"0" * 64 + b'"}}',
        b"[" * 99_999,
    ],
)
def test_digests_that_are_none_are_damage(tmp_path, content):
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(UserError) as caught:
        check_digests(tmp_path)
    assert one_line(caught).startswith(f"{tmp_path}: is damaged ({NAME}: ")


def test_digests_are_replaced_whole(tmp_path):
    (tmp_path / "item").mkdir()
    (tmp_path / "item" / "file").write_bytes(b"abc")
    write_digests(tmp_path)
    wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert json.loads((tmp_path / NAME).read_text())["sha256"] == {"item/file": wanted}
    assert {path.name for path in tmp_path.iterdir()} == {"item", NAME}


def test_the_shipped_weights_have_digests():
    listed = json.loads((PRETRAINED / NAME).read_text())["sha256"]
    assert {name.split("/")[0] for name in listed} == {"variables", "about"}
    check_digests(PRETRAINED)


def test_a_file_is_no_checkpoint(tmp_path):
    (tmp_path / "model.pkl").write_bytes(b"x")
    with pytest.raises(UserError, match=r"convert it with python -m masktrack_jax\.interop --input"):
        read_metadata(tmp_path / "model.pkl")
