"""The videos that a configuration trains on and evaluates: splits, held out videos, missing labels."""

import json
import shutil
import zipfile

import pytest

from masktrack_jax.data.generate.options import GeneratorOptions
from masktrack_jax.data.generate.write import generate
from masktrack_jax.data.splits import ground_truth, held_out, training_split, validation_split
from masktrack_jax.data.vis import read_vis
from masktrack_jax.inference import split as splits
from masktrack_jax.models.masktrack_rcnn import build_model
from masktrack_jax.runtime.errors import UserError
from tests.helpers.configs import load_config

# Of the folders 00000 to 00199, those whose names' CRC-32 (as gzip writes it) 10 divides.
TENTH = [
    f"{number:05d}"
    for number in (7, 26, 38, 66, 72, 78, 109, 123, 129, 134, 135, 140, 142, 149, 154, 177, 181, 194)
]


def names(dataset):
    return [video.name for video in dataset.videos]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """An annotations file of 200 videos in falling order, without frames."""
    videos = [
        {"id": 1000 + i, "height": 8, "width": 8, "file_names": [f"{i:05d}/a.jpg"]}
        for i in range(199, -1, -1)
    ]
    rle = {"size": [8, 8], "counts": [0, 64]}
    objects = [
        {"id": i, "video_id": 1000 + i, "category_id": 1, "segmentations": [rle], "bboxes": [[0, 0, 8, 8]]}
        for i in range(200)
    ]
    path = tmp_path_factory.mktemp("many") / "train.json"
    categories = [{"id": 1, "name": "a"}]
    path.write_text(json.dumps({"categories": categories, "videos": videos, "annotations": objects}))
    return path


@pytest.fixture
def config(many):
    config = load_config("tiny")
    config.data.update({"train_annotations": str(many), "val_annotations": ""})
    return config


def test_a_tenth_is_the_same_for_everyone(config, capsys):
    config.data.holdout = "tenth"
    train, held = training_split(config), validation_split(config)
    assert sorted(names(held)) == TENTH
    assert sorted(names(train) + names(held)) == [f"{i:05d}" for i in range(200)]
    for dataset in (train, held):
        assert set(dataset.objects) == {video.id for video in dataset.videos}
    said = capsys.readouterr().out
    assert (
        "training on" in said and "182 videos" in said and "held out (tenth)" in said and "18 videos" in said
    )


def test_the_tenth_does_not_depend_on_ids_or_order(many, tmp_path):
    content = json.loads(many.read_text())
    content["videos"] = [video | {"id": i} for i, video in enumerate(content["videos"][100:])]
    content["annotations"] = []
    path = tmp_path / "other.json"
    path.write_text(json.dumps(content))
    assert sorted(video.name for video in held_out(read_vis(path), "tenth")) == [
        name for name in TENTH if name < "00100"
    ]


def test_folders_of_one_name_are_told_apart(many, tmp_path):
    """cam0/frames, cam1/frames, …: the whole path counts, else all were held out or none."""
    content = json.loads(many.read_text())
    for i, video in enumerate(content["videos"]):
        video["file_names"] = [f"cam{i}/frames/0.jpg"]
    path = tmp_path / "cameras.json"
    path.write_text(json.dumps(content))
    assert 8 <= len(held_out(read_vis(path), "tenth")) <= 32


def test_a_list_file_names_the_held_out_videos(config, tmp_path):
    path = tmp_path / "held.txt"
    path.write_text("# by name or id\n00003\n\n 1150 \n00003\n")
    config.data.holdout = str(path)
    held, train = validation_split(config), training_split(config)
    assert names(held) == ["00150", "00003"] and len(train.videos) == 198
    assert not set(names(held)) & set(names(train))
    path.write_text("00003\n00900\n")
    with pytest.raises(UserError, match=r"held\.txt: line 2: '00900' is not a video of .*train\.json"):
        validation_split(config)
    path.write_text("# nothing\n")
    with pytest.raises(UserError, match=r"held\.txt: names no video"):
        validation_split(config)
    config.data.holdout = "tent"
    with pytest.raises(UserError, match=r"config\.data\.holdout: tent: cannot be read .*; give 'tenth' or"):
        training_split(config)


def test_holding_out_none_or_all_is_refused(tiny_data, config, tmp_path):
    config.data.update({"train_annotations": str(tiny_data), "holdout": "tenth"})
    with pytest.raises(UserError, match=r"holdout=tenth: selects none of the 4 videos"):
        training_split(config)
    config.data.holdout = str(tmp_path / "all.txt")
    (tmp_path / "all.txt").write_text("00000\n00001\n00002\n00003\n")
    assert len(validation_split(config).videos) == 4
    with pytest.raises(UserError, match="leaves no video to train on"):
        training_split(config)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """train/ and a public valid/, which has no labels, as YouTube-VIS 2021 has them; 2 videos each."""
    root = tmp_path_factory.mktemp("data") / "ytvis_2021"
    common = {"frames": 2, "height": 64, "width": 96, "videos": 2}
    generate(root / "train", GeneratorOptions(seed=1, **common))
    path = generate(root / "valid", GeneratorOptions(seed=2, **common))
    content = json.loads(path.read_text())
    del content["annotations"]
    path.write_text(json.dumps(content))
    return root


def test_splits_below_a_root(root, capsys):
    config = load_config("tiny")
    config.data.update({"root": str(root.parent), "train_annotations": "", "val_annotations": ""})
    train, valid = training_split(config), validation_split(config)
    assert train.annotations_path == root / "train" / "instances.json" and train.labelled
    assert valid.annotations_path == root / "valid" / "instances.json" and not valid.labelled
    assert "valid/instances.json: has no labels, so there will be a submission" in capsys.readouterr().out
    config.data.val_split = "test"
    with pytest.raises(
        UserError,
        match=r"no test split \(it has train, valid\).*; set data\.holdout=tenth .* data\.val_split= for",
    ):
        validation_split(config)
    config.data.val_split = ""
    assert validation_split(config) is None
    # Files go before what is found.
    config.data.train_annotations = str(root / "valid" / "instances.json")
    with pytest.raises(
        UserError, match=r"valid/instances\.json: has no labels, so there is nothing to train on"
    ):
        training_split(config)


def test_a_split_without_labels_writes_a_submission(root, tmp_path, tiny_model, capsys):
    import jax

    config = load_config("tiny")
    config.data.update({"root": str(root), "train_annotations": "", "val_annotations": ""})
    categories = training_split(config).labels
    split = splits.open_split(config, categories)
    variables = build_model(config, len(categories)).init_variables(jax.random.key(0))
    assert splits.evaluate_split(config, split, categories, variables, tmp_path / "metrics.json") is None
    assert sorted(file.name for file in tmp_path.iterdir()) == ["results.json", "results.zip"]
    with zipfile.ZipFile(tmp_path / "results.zip") as archive:
        assert archive.read("results.json") == (tmp_path / "results.json").read_bytes()
    results = json.loads((tmp_path / "results.json").read_text())
    assert {track["video_id"] for track in results} <= {1, 2}
    assert "has no labels: upload" in capsys.readouterr().out


def perfect_tracks(dataset, ids):
    """Tracks that are the labels, with category ids of the network; of a category it does not know, none."""
    return [
        {
            "video_id": found.video_id,
            "category_id": ids[dataset.categories[found.label].id],
            "score": 0.9,
            "segmentations": list(found.segmentations),
        }
        for objects in dataset.objects.values()
        for found in objects
        if dataset.categories[found.label].id in ids
    ]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    options = GeneratorOptions(videos=6, frames=4, height=64, width=96, seed=5, min_objects=3, max_objects=4)
    return read_vis(generate(tmp_path_factory.mktemp("shapes") / "data", options))


def test_categories_in_common_are_evaluated(shapes, tmp_path, monkeypatch, capsys):
    """A network that calls its categories otherwise, and knows some that the file has not."""
    places = {name: category_id for category_id, name in shapes.labels}
    network = [(50, "zebra"), (7, "Triangle"), (8, "square"), (9, "circle")]
    ids = {places["triangle"]: 7, places["square"]: 8, places["circle"]: 9, places["star"]: 50}
    monkeypatch.setattr(splits, "segment_split", lambda *_: perfect_tracks(shapes, ids))
    monkeypatch.setattr(splits, "build_segmenters", lambda *_: None)
    config = load_config("tiny")
    metrics = splits.evaluate_split(config, shapes, network, None, tmp_path / "metrics.json")
    assert metrics["AP"] == 1 and set(metrics["per_category"]) == {"circle", "square", "triangle"}
    said = capsys.readouterr().out
    assert "3 of its 6 categories are known to the network and evaluated; not star, cross, ring" in said
    common = {places[name] for name in ("circle", "square", "triangle")}
    results = json.loads((tmp_path / "results.json").read_text())
    assert {track["category_id"] for track in results} == common
    labels = json.loads((tmp_path / "labels.json").read_text())
    assert len(labels["categories"]) == 3 and len(labels["videos"]) == 6
    assert {record["category_id"] for record in labels["annotations"]} == common


def test_the_same_categories_say_nothing_and_leave_no_part(shapes, tmp_path, monkeypatch, capsys):
    ids = {category_id: category_id for category_id, _ in shapes.labels}
    monkeypatch.setattr(splits, "segment_split", lambda *_: perfect_tracks(shapes, ids))
    monkeypatch.setattr(splits, "build_segmenters", lambda *_: None)
    splits.evaluate_split(load_config("tiny"), shapes, shapes.labels, None, tmp_path / "metrics.json")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["metrics.json", "results.json"]
    assert "known to the network" not in capsys.readouterr().out


def test_held_out_videos_are_scored_alone(shapes, tmp_path, monkeypatch):
    (tmp_path / "held.txt").write_text("00001\n00004\n")
    config = load_config("tiny")
    config.data.update(
        {"train_annotations": str(shapes.annotations_path), "holdout": str(tmp_path / "held.txt")}
    )
    held = splits.open_split(config, shapes.labels)
    ids = {category_id: category_id for category_id, _ in shapes.labels}
    monkeypatch.setattr(splits, "segment_split", lambda _, dataset: perfect_tracks(dataset, ids))
    monkeypatch.setattr(splits, "build_segmenters", lambda *_: None)
    metrics = splits.evaluate_split(config, held, shapes.labels, None, tmp_path / "out" / "metrics.json")
    assert metrics["AP"] == 1
    labels = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert [video["id"] for video in labels["videos"]] == [2, 5]
    assert labels == ground_truth(held, set(ids))


def test_a_missing_frame_of_a_split_is_named(root, tmp_path):
    shutil.copytree(root, tmp_path / "copy")
    (tmp_path / "copy" / "valid" / "JPEGImages" / "00001" / "00000.jpg").unlink()
    config = load_config("tiny")
    config.data.update({"root": str(tmp_path / "copy"), "train_annotations": "", "val_annotations": ""})
    with pytest.raises(UserError, match=r"valid/instances\.json: frame 00001/00000\.jpg is in none of"):
        validation_split(config)
