"""Each usual layout of a data set on disk is found; for others, one line lists the places searched."""

import json

import pytest

from masktrack_jax.data.layouts import find_dataset, find_datasets, find_split, plain_name
from masktrack_jax.data.splits import read_split
from masktrack_jax.runtime.errors import UserError

SIZE = {"height": 8, "width": 10}


def content(split, labelled):
    """An annotations file of two videos of two frames; the video ids tell the splits apart."""
    ids = {"train": (11, 12), "valid": (21, 22), "test": (31, 32)}[split]
    videos = [
        {"id": i, **SIZE, "length": 2, "file_names": [f"{split}{i}/0.jpg", f"{split}{i}/1.jpg"]} for i in ids
    ]
    categories = [{"id": 3, "name": "fish"}, {"id": 7, "name": "bird"}]
    out = {"categories": categories, "videos": videos}
    if labelled:
        mask = {"size": [8, 10], "counts": [10, 6, 64]}
        annotation = {"id": 1, "video_id": ids[0], "category_id": 7, "iscrowd": 0}
        boxes = {"segmentations": [None, mask], "bboxes": [None, [1, 2, 3, 4]], "areas": [None, 6]}
        out["annotations"] = [annotation | boxes]
    return out


def put(root, annotations, frames, split, labelled=None):
    """Write a split: its annotations file and its frames, which are empty files."""
    made = content(split, split == "train" if labelled is None else labelled)
    path = root / annotations
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(made))
    for video in made["videos"]:
        for name in video["file_names"]:
            (root / frames / name).parent.mkdir(parents=True, exist_ok=True)
            (root / frames / name).touch()
    return path


# Where each split's annotations and frames lie.
LAYOUTS = {
    "youtubevis2019": ("youtubevis2019", ("{}.json", "{}/JPEGImages")),
    "ytvis_2019": ("youtubevis2019", ("{}.json", "{}/JPEGImages")),
    "YouTubeVIS-2021": ("youtubevis2021", ("{}/instances.json", "{}/JPEGImages")),
    "youtube_vis_2022": ("youtubevis2022", ("{}/instances.json", "{}/JPEGImages")),
    "ytvis/2021": ("youtubevis2021", ("annotations/{}.json", "{}_all_frames/JPEGImages")),
    "OVIS": ("ovis", ("annotations_{}.json", "{}")),
    "ovis": ("ovis", ("annotations/annotations_{}.json", "Images/{}")),
    "data_ovis": ("ovis", ("{}.json", "JPEGImages")),
    "anything": ("", ("instances_{}.json", "images/{}")),
    "plain": ("youtubevis2019", ("annotations/youtube_vis_2019_{}.json", "{}/JPEGImages")),
    "plain2": ("ovis", ("annotations/ovis_{}.json", "JPEGImages/{}")),
}


@pytest.mark.parametrize("folder", LAYOUTS)
@pytest.mark.parametrize("below", ["", "one", "one/two"])
def test_usual_layouts_are_found(tmp_path, folder, below):
    name, (annotations, frames) = LAYOUTS[folder]
    place = tmp_path / "root" / below / folder
    for split in ("train", "valid", "test"):
        put(place, annotations.format(split), frames.format(split), split)
    root = tmp_path / "root" if "/" not in f"{below}{folder}" else place.parent
    found = find_dataset(root, name)
    assert (found.folder, found.name, list(found.splits)) == (place, name, ["train", "valid", "test"])
    for split, first in (("train", 11), ("valid", 21), ("test", 31)):
        dataset = read_split(find_split(found, split))
        assert dataset.videos[0].id == first and dataset.labelled == (split == "train")
        assert dataset.annotations_path == place / annotations.format(split)
        assert dataset.frames_root == place / frames.format(split)
        assert all(dataset.has_frame(video, frame) for video in dataset.videos for frame in (0, 1))


def test_the_authors_layout_and_its_validation_part_of_the_training_frames(tmp_path):
    """`annotations/instances_*_sub.json`; frames in val/ or, cut out of the training videos, in train/."""
    put(tmp_path, "annotations/instances_train_sub.json", "train/JPEGImages", "train")
    put(tmp_path, "annotations/instances_val_sub.json", "train/JPEGImages", "valid", labelled=True)
    found = find_dataset(tmp_path)
    valid = read_split(find_split(found, "valid"))
    assert valid.labelled and valid.videos[0].id == 21
    assert valid.frames_root == tmp_path / "train" / "JPEGImages"
    put(tmp_path, "annotations/instances_val_sub.json", "val/JPEGImages", "valid", labelled=True)
    assert read_split(find_split(found, "valid")).frames_root == tmp_path / "train" / "JPEGImages"
    found = find_dataset(tmp_path)
    assert read_split(find_split(found, "valid")).frames_root == tmp_path / "val" / "JPEGImages"


def test_the_published_file_goes_before_one_made_of_it(tmp_path):
    put(tmp_path, "annotations/youtube_vis_2019_train.json", "train/JPEGImages", "valid")
    put(tmp_path, "train.json", "train/JPEGImages", "train")
    assert find_dataset(tmp_path).splits["train"].annotations == tmp_path / "train.json"


def test_a_folder_of_own_videos(tmp_path):
    put(tmp_path, "instances.json", "JPEGImages", "train")
    found = find_dataset(tmp_path)
    assert list(found.splits) == ["train"]
    assert read_split(found.splits["train"]).frames_root == tmp_path / "JPEGImages"
    with pytest.raises(UserError, match=r"has no valid split \(it has train\); looked for valid\|val\.json"):
        find_split(found, "valid")


def test_one_of_several_is_chosen_by_name(tmp_path):
    for folder in ("ytvis_2019", "ytvis_2021", "OVIS", "mine"):
        put(tmp_path / folder, "train.json", "train/JPEGImages", "train")
    assert len(find_datasets(tmp_path)) == 4
    chosen = {
        name: find_dataset(tmp_path, name).folder.name
        for name in ("youtubevis2021", "YouTube-VIS 2019", "ovis", "mine")
    }
    assert list(chosen.values()) == ["ytvis_2021", "ytvis_2019", "OVIS", "mine"]
    with pytest.raises(UserError, match=r"holds several data sets: .*OVIS \(ovis\), .*mine, .*ytvis_2019"):
        find_dataset(tmp_path)
    # The only one that says nothing of itself is what is meant.
    assert find_dataset(tmp_path, "youtubevis2022").folder.name == "mine"
    (tmp_path / "mine" / "train.json").unlink()
    with pytest.raises(
        UserError, match=r"has no youtubevis2022, only .*OVIS \(ovis\), .*ytvis_2019"
    ) as caught:
        find_dataset(tmp_path, "youtubevis2022")
    assert "\n" not in str(caught.value)


def test_files_go_before_their_packed_copy(tmp_path):
    """Packing changes nothing for those who name the folder above both."""
    put(tmp_path / "ytvis_2019", "train.json", "train/JPEGImages", "train")
    copy = tmp_path / "packed" / "vis_frames" / "youtubevis2019" / "1.0.0"
    copy.mkdir(parents=True)
    for name in ("dataset_info.json", "train.annotations.json"):
        (copy / name).touch()
    assert find_dataset(tmp_path).folder == find_dataset(tmp_path, "youtubevis2019").folder
    assert not find_dataset(tmp_path).packed
    found = find_dataset(tmp_path / "packed")
    assert find_dataset(tmp_path / "packed", "youtubevis2019") == found
    assert found.folder == copy and found.packed and found.name == "youtubevis2019"


def test_names():
    for text, name in [
        ("YouTube-VIS_2019", "youtubevis2019"),
        ("ytvis21", "youtubevis2021"),
        ("vis_frames/youtubevis2022/1.0.0", "youtubevis2022"),
        ("Occluded/OVIS", "ovis"),
        ("youtube_vos_2019", ""),
        ("moviset", ""),
        ("ytvis", ""),
    ]:
        assert plain_name(text) == name, text


def test_a_folder_is_named_by_its_own_name_before_that_of_one_above(tmp_path):
    put(tmp_path / "ytvis_2019" / "ovis", "train.json", "train/JPEGImages", "train")
    assert find_dataset(tmp_path / "ytvis_2019").name == "ovis"


def test_nothing_found_lists_what_was_looked_for(tmp_path):
    with pytest.raises(
        UserError, match=r"no data set in or below it; looked for train\.json, .*instances\.json"
    ):
        find_dataset(tmp_path)
    with pytest.raises(UserError, match=r"away: no such folder; set config\.data\.root"):
        find_dataset(tmp_path / "away")


def test_frames_that_are_not_there(tmp_path):
    put(tmp_path, "train.json", "train/JPEGImages", "train")
    (tmp_path / "train" / "JPEGImages" / "train12" / "0.jpg").unlink()
    wanted = r"train\.json: frame train12/0\.jpg is in none of .*train/JPEGImages, .*; unpack"
    with pytest.raises(UserError, match=wanted):
        read_split(find_dataset(tmp_path).splits["train"])


@pytest.mark.parametrize(
    "frames", ["train/train/JPEGImages", "train/JPEGImages/JPEGImages", "train/JPEGImages"]
)
@pytest.mark.parametrize("labels", ["train/train/instances.json", "train/instances.json", "train.json"])
def test_folders_unpacked_twice(tmp_path, labels, frames):
    root = tmp_path / "ytvis_2021"
    put(root, labels, frames, "train")
    found = find_dataset(tmp_path)
    dataset = read_split(find_split(found, "train"))
    assert found.folder == root and dataset.annotations_path == root / labels
    assert dataset.frames_root == root / frames


def test_the_folder_of_the_annotations_as_root(tmp_path):
    put(tmp_path, "annotations/instances_val.json", "val/JPEGImages", "valid")
    found = find_dataset(tmp_path / "annotations")
    assert read_split(find_split(found, "valid")).frames_root == tmp_path / "val" / "JPEGImages"


def test_a_root_too_low(tmp_path):
    put(tmp_path, "train/instances.json", "train/JPEGImages", "train")
    put(tmp_path, "valid/instances.json", "valid/JPEGImages", "valid")
    (tmp_path / "JPEGImages").mkdir()
    with pytest.raises(
        UserError, match=rf"no data set .*; set config\.data\.root to {tmp_path}, which holds"
    ):
        find_dataset(tmp_path / "JPEGImages")
    low = find_dataset(tmp_path / "train")
    assert list(low.splits) == ["train"]
    with pytest.raises(
        UserError, match=rf"has no valid split .*; set config\.data\.root to {tmp_path}, which"
    ):
        find_split(low, "valid")


def test_roots_that_are_no_folders(tmp_path, monkeypatch):
    for name in ("a.ZIP", "labels.json"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    for root, words in (
        ("a.ZIP", r"a\.ZIP: is an archive; unpack it and set config\.data\.root"),
        ("labels.json", r"is a file; .*or config\.data\.train_annotations to a file"),
        ("C:\\data\\ytvis", r"no such folder; give its path on this system, not that of Windows"),
        ("x" * 300, r"x: no such folder; set config\.data\.root"),
        (".", r"; a\.ZIP is not unpacked: unpack it there"),
    ):
        with pytest.raises(UserError, match=words):
            find_dataset(root)


def test_roots_as_people_write_them(tmp_path, monkeypatch):
    put(tmp_path / "sets" / "mine", "instances.json", "JPEGImages", "train")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_dataset("sets\\mine").folder.resolve() == tmp_path / "sets" / "mine"
    assert find_dataset("~/sets").folder == tmp_path / "sets" / "mine"
