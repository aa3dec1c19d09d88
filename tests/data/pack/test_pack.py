"""Packed data sets give the same batches as their files, bit for bit, and never import TensorFlow."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from masktrack_jax.data.generate.options import GeneratorOptions
from masktrack_jax.data.generate.write import generate
from masktrack_jax.data.layouts import find_dataset
from masktrack_jax.data.options import PairOptions
from masktrack_jax.data.pack.__main__ import main
from masktrack_jax.data.pack.write import own_name, pack
from masktrack_jax.data.pipeline import training_batches
from masktrack_jax.data.splits import read_split, training_split, validation_split
from masktrack_jax.masks.segmentations import decode_segmentation
from masktrack_jax.runtime.errors import UserError
from tests.helpers.configs import ROOT, load_config

OPTIONS = PairOptions(
    scales=[(96, 64), (72, 48)], buckets=[(64, 96)], max_objects=3, both_ways=True, jitter=0.2
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """train/ of 5 videos and val/ of 2."""
    root = tmp_path_factory.mktemp("street")
    common = {"height": 64, "width": 96, "frames": 5}
    generate(root / "train", GeneratorOptions(videos=5, seed=3, **common))
    generate(root / "val", GeneratorOptions(videos=2, seed=4, **common))
    return root


@pytest.fixture(scope="module")
def packed(root, tmp_path_factory):
    return pack(root, tmp_path_factory.mktemp("packed"), shards=4)


def read(root, split="train"):
    return read_split(find_dataset(root).splits[split])


def take(dataset, count, **more):
    batches = training_batches(dataset, OPTIONS, seed=7, batch_size=2, **more)
    try:
        return [next(batches) for _ in range(count)]
    finally:
        batches.close()


def assert_same(left, right):
    for one, other in zip(left, right, strict=True):
        assert jax.tree.structure(one) == jax.tree.structure(other)
        for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other)):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("how", [{"threads": 1}, {"threads": 4}, {"workers": 2}])
def test_batches_are_those_of_the_json(root, packed, how, monkeypatch):
    """Two epochs, in one thread, several, and in other processes."""
    monkeypatch.setattr(sys, "argv", ["pytest"])
    wanted = take(read(root), 24)
    assert len({int(i) for batch in wanted for i in batch.provenance.video_index}) == 5
    assert_same(take(read(packed), 24, **how), wanted)


def test_a_packed_data_set_is_found_and_trained_on_by_one_line(root, packed):
    """From the folder given to --output on; held out videos, too."""
    config = load_config("tiny")
    config.data.update({"train_annotations": "", "val_annotations": "", "root": str(packed.parents[2])})
    train, valid = training_split(config), validation_split(config)
    assert len(train.videos) == 5 and len(valid.videos) == 2 and train.packed is not None
    assert valid.labelled and valid.annotations_path.parent == packed
    (packed.parents[2] / "held.txt").write_text("00001\n")
    config.data.holdout = str(packed.parents[2] / "held.txt")
    held, plain = validation_split(config), read(root)
    frames = [(video, t) for video in held.videos for t in range(video.length)]
    assert [video.name for video, _ in frames] == ["00001"] * 5
    for video, t in frames:
        np.testing.assert_array_equal(held.read_frame(video, t), plain.read_frame(plain.videos[1], t))


def test_records_hold_the_files_bytes_and_the_labels(root, packed):
    import tensorflow_datasets as tfds

    plain = read(root, "valid")
    builder = tfds.builder_from_directory(packed)
    source = builder.as_data_source("valid", decoders={"image": tfds.decode.SkipDecoding()})
    frames = [(video, t) for video in plain.videos for t in range(video.length)]
    assert len(source) == len(frames) == 10
    assert builder.info.features["objects"]["label"].names == [c.name for c in plain.categories]
    seen = 0
    for record, (video, t) in zip(source, frames):
        assert record["image"] == plain.frame_path(video, t).read_bytes()
        assert (record["video_id"], record["frame"], record["length"]) == (video.id, t, video.length)
        assert (record["height"], record["width"]) == (video.height, video.width)
        objects = [found for found in plain.objects_of(video) if found.boxes[t] is not None]
        ours = record["objects"]
        assert list(ours["annotation_id"]) == [found.annotation_id for found in objects]
        assert list(ours["label"]) == [found.label for found in objects]
        for i, found in enumerate(objects):
            np.testing.assert_array_equal(ours["box"][i], np.float32(found.boxes[t]))
            rle = {"size": [video.height, video.width], "counts": ours["rle"][i].decode()}
            masks = [decode_segmentation(one, *rle["size"]) for one in (rle, found.segmentations[t])]
            np.testing.assert_array_equal(*masks)
            seen += 1
    assert seen > 10


def test_the_annotations_are_packed_as_they_are(root, packed):
    for split, folder in (("train", "train"), ("valid", "val")):
        there = (packed / f"{split}.annotations.json").read_bytes()
        assert there == (root / folder / "instances.json").read_bytes()


def test_a_packed_data_set_may_be_sent_to_another_process(packed):
    dataset = read(packed)
    again = pickle.loads(pickle.dumps(dataset))
    video = dataset.videos[3]
    np.testing.assert_array_equal(again.read_frame(video, 2), dataset.read_frame(video, 2))


WITHOUT_TENSORFLOW = """
import sys

from masktrack_jax.data.layouts import find_dataset
from masktrack_jax.data.pack.write import pack
from masktrack_jax.data.splits import read_split

_, root, output, name = sys.argv
assert "tensorflow_datasets" not in sys.modules  # only where it is used
dataset = read_split(find_dataset(pack(root, output)).splits["train"])
assert dataset.read_frame(dataset.videos[0], 0).shape == (64, 96, 3)
import tensorflow_datasets as tfds

records = tfds.data_source(f"vis_frames/{name}", data_dir=output, split="train")
assert len(records) == 25 and records[24]["image"].shape == (64, 96, 3), len(records)
assert not [name for name in sys.modules if name.partition(".")[0] == "tensorflow"]
print("fine")
"""


def test_tensorflow_is_never_imported(root, tmp_path):
    """Packing, reading and `tfds.data_source`, beside a TensorFlow that cannot be imported."""
    (tmp_path / "path" / "tensorflow").mkdir(parents=True)
    (tmp_path / "path" / "tensorflow" / "__init__.py").write_text("raise AssertionError('imported')")
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, root, tmp_path / "out", own_name(root)]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'path'}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "fine"
    assert "Downloading" not in done.stdout + done.stderr


def test_what_cannot_be_packed_leaves_nothing(root, packed, tmp_path):
    with pytest.raises(UserError, match=r"1\.0\.0: exists; remove it or choose another --output"):
        pack(root, packed.parents[2])
    with pytest.raises(UserError, match="is already packed"):
        pack(packed, tmp_path / "twice")
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    (copy / "train" / "JPEGImages" / "00002" / "00003.jpg").unlink()
    with pytest.raises(UserError, match=r"00002/00003\.jpg: no such image"):
        pack(copy, tmp_path / "missing")
    path = copy / "val" / "instances.json"
    content = json.loads(path.read_text())
    content["categories"][0]["name"] = "disc"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"categories are not those of .*; pack them one by one"):
        pack(root=copy, output=tmp_path / "other")
    assert sorted(os.listdir(tmp_path)) == ["copy"]
    assert pack(copy, tmp_path / "val only", splits=["valid"]).is_dir()


@pytest.mark.parametrize("shards", [0, -1, 11])
def test_a_number_of_shards_that_cannot_be(root, tmp_path, shards):
    with pytest.raises(UserError, match=rf"--shards: is {shards}; give 1 to 10, the frames of the smallest"):
        pack(root, tmp_path / "out", shards=shards)
    assert not list(tmp_path.iterdir())


def test_a_failure_while_packing_leaves_nothing(root, tmp_path, monkeypatch):
    from masktrack_jax.data.pack import tfds_builder

    record, calls = tfds_builder._record, []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) > 12:
            raise OSError(28, "No space left on device")
        return record(*arguments)

    monkeypatch.setattr(tfds_builder, "_record", failing)
    with pytest.raises(UserError, match="No space left on device") as caught:
        pack(root, tmp_path / "out")
    assert len(calls) == 13 and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_damage_is_one_line(packed, tmp_path):
    folder = tmp_path / "1.0.0"
    shutil.copytree(packed, folder)
    path = folder / "train.annotations.json"
    content = json.loads(path.read_text())
    content["videos"].reverse()
    path.write_text(json.dumps(content))
    dataset = read(folder)
    with pytest.raises(UserError, match=r"holds 00000/00000\.jpg instead of 00004/00000\.jpg; pack it"):
        dataset.read_frame(dataset.videos[0], 0)
    content["annotations"] = []
    last = content["videos"].pop()
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"holds 25 train frames but its annotations name 20; pack it again"):
        read(folder)
    content["videos"].append(last)
    path.write_text(json.dumps(content))
    assert len(read(folder).videos) == 5
    next(folder.glob("*train.array_record-00002*")).unlink()
    with pytest.raises(UserError, match=r"1\.0\.0: cannot be read as a packed data set .*00002") as caught:
        read(folder)
    assert "\n" not in str(caught.value)


def test_the_command(root, tmp_path, monkeypatch, capsys):
    arguments = ["--root", root, "--output", tmp_path / "out", "--splits", "valid", "--shards", 2]
    monkeypatch.setattr(sys, "argv", ["pack", *map(str, arguments)])
    main()
    folder = tmp_path / "out" / "vis_frames" / own_name(root) / "1.0.0"
    assert f"--config.data.root={folder}" in capsys.readouterr().out
    assert len(list(folder.glob("*valid.array_record*"))) == 2
    assert find_dataset(tmp_path / "out", own_name(root)).folder == folder
    assert len(read(folder, "valid").videos) == 2 and list(find_dataset(folder).splits) == ["valid"]


def test_own_names(tmp_path):
    assert own_name(tmp_path / "my street" / "train") == "my_street"
    assert own_name(tmp_path / "ytvis") == "ytvis"
