"""The files of a packed data set choose no code and no paths; its damage is noticed."""

import json
import os
import random
import shutil
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masktrack_jax.data.generate.options import GeneratorOptions
from masktrack_jax.data.generate.write import generate
from masktrack_jax.data.layouts import find_dataset
from masktrack_jax.data.pack.read import PackedFrames
from masktrack_jax.data.pack.write import pack
from masktrack_jax.data.splits import read_split
from masktrack_jax.runtime.errors import UserError
from tests.helpers.mutations import changed, cut_or_flipped, refused_or

SHARD = "vis_frames-train.array_record-0000{}-of-00002"
HOSTILE = {  # of dataset_info.json
    "fileFormat": "tfrecord",
    "moduleName": "named_by_the_data",
    "name": "named_by_the_data",
    "splits": [{"name": "train", "filepathTemplate": "../../{SPLIT}", "shardLengths": [str(10**18)]}],
}


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A packed split of 2 videos with 3 frames each, in two files."""
    root = tmp_path_factory.mktemp("street")
    generate(root, GeneratorOptions(videos=2, seed=3, height=32, width=48, frames=3))
    return pack(root, tmp_path_factory.mktemp("packed"), shards=2)


@pytest.fixture(scope="module")
def images(packed):
    return images_of(packed)


@pytest.fixture
def folder(packed, tmp_path):
    """A copy to change."""
    return shutil.copytree(packed, tmp_path / "1.0.0")


def read(folder):
    return read_split(find_dataset(folder).splits["train"])


def images_of(folder):
    """The bytes of all frames."""
    dataset = read(folder)
    return [dataset.packed.open(video, t).getvalue() for video in dataset.videos for t in range(3)]


def named_everywhere(value):
    """features.json with another class at every place."""
    if isinstance(value, dict):
        return {
            key: "named_by_the_data.Feature" if key == "pythonClassName" else named_everywhere(inner)
            for key, inner in value.items()
        }
    return value


def test_no_class_of_the_data_is_imported(folder, images, monkeypatch):
    """As if the data set were unpacked in the current folder and brought its own Python."""
    (folder / "named_by_the_data.py").write_text("raise SystemExit('code of the data set ran')")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(folder)
    features = json.loads((folder / "features.json").read_text())
    (folder / "features.json").write_text(json.dumps(named_everywhere(features)))
    (folder / "dataset_info.json").write_text(json.dumps(HOSTILE))
    assert images_of(folder) == images
    assert "named_by_the_data" not in sys.modules


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
def test_the_files_of_tfds_are_not_read(folder, images, name):
    (folder / name).write_bytes(b"\xff[[")
    assert images_of(folder) == images


def test_missing_and_doubled_shards(folder):
    shutil.copyfile(folder / SHARD.format(0), folder / SHARD.format(0).replace("-00002", "-00003"))
    with pytest.raises(UserError, match=r"\(2 files are named vis_frames-train\.array_record-00000-of-\*"):
        read(folder)
    (folder / SHARD.format(0)).unlink()
    with pytest.raises(UserError, match=r"record-00001-of-00003 is missing\); pack it again"):
        read(folder)
    (folder / SHARD.format(0).replace("-00002", "-00003")).rename(folder / SHARD.format(0))
    (folder / SHARD.format(1)).unlink()
    os.mkfifo(folder / SHARD.format(1))  # opening it would wait for ever
    with pytest.raises(UserError, match=r"record-00001-of-00002 is missing\); pack it again"):
        read(folder)


def test_a_record_of_another_kind(folder):
    from array_record.python.array_record_module import ArrayRecordWriter

    for shard in range(2):
        writer = ArrayRecordWriter(str(folder / SHARD.format(shard)), "group_size:1")
        for _ in range(3):
            writer.write(b"\n\0")  # an Example without features
        writer.close()
    dataset = read(folder)
    with pytest.raises(UserError, match=r"1\.0\.0: 00000/00000\.jpg cannot be read \(.*\); pack it again"):
        dataset.read_frame(dataset.videos[0], 0)


def test_a_flipped_bit_is_noticed(folder, images):
    """Bits of the records: every frame is the same, or refused."""
    path, videos, rng = folder / SHARD.format(0), read(folder).videos, random.Random(0)
    whole, refused = path.read_bytes(), 0
    used = [i for i, byte in enumerate(whole) if byte]
    for _ in range(60):
        flipped = bytearray(whole)
        flipped[rng.choice(used)] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            frames = PackedFrames(folder, "train", videos)
            found = [frames.open(video, t).getvalue() for video in videos for t in range(3)]
        except UserError as error:
            refused += "\n" not in str(error) and "; pack it again" in str(error)
        else:
            assert found == images
    assert refused > 50


def test_a_change_of_the_annotations_is_said(folder, capsys):
    read(folder)
    assert "note" not in capsys.readouterr().out
    path = folder / "train.annotations.json"
    path.write_bytes(path.read_bytes().replace(b'"area', b'"Area', 1))
    read(folder)
    assert capsys.readouterr().out == (
        f"note: {path}: has changed since it was packed, or is damaged; see annotations.sha256\n"
    )
    (folder / "annotations.sha256").unlink()  # as in sets packed before
    read(folder)
    assert not capsys.readouterr().out


@given(data=st.data())
def test_fuzz(packed, images, tmp_path_factory, data):
    """Any file of a packed data set with random changes: the same frames, or one line."""
    folder = tmp_path_factory.mktemp("fuzz") / "1.0.0"
    folder.mkdir()
    name = data.draw(st.sampled_from(sorted(path.name for path in packed.iterdir())))
    for path in packed.iterdir():
        if path.name != name:
            (folder / path.name).hardlink_to(path)
    whole = (packed / name).read_bytes()
    if name.endswith(".json") and data.draw(st.booleans()):
        content = data.draw(changed(json.loads(whole)))
        (folder / name).write_text(json.dumps(content, ensure_ascii=True))
    else:
        (folder / name).write_bytes(data.draw(cut_or_flipped(whole)))
    if (dataset := refused_or(read, folder)) is None:
        return
    for video in dataset.videos:
        for frame in range(video.length):
            found = refused_or(lambda _, v=video, t=frame: dataset.packed.open(v, t).getvalue(), folder)
            assert found is None or found in images
    shutil.rmtree(folder.parent)
