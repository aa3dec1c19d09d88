"""Whatever training reads can be packed, and gives the same data set; other files are refused alike."""

import json

import numpy as np
import pytest
from PIL import Image

from masktrack_jax.data.layouts import find_dataset
from masktrack_jax.data.pack.write import pack
from masktrack_jax.data.splits import read_split
from masktrack_jax.runtime.errors import UserError
from tests.helpers.annotations import annotations, set_to


def write(root, *changes):
    content = annotations()
    for change in changes:
        change(content)
    for video in content["videos"]:
        for name in video["file_names"]:
            path = root / "train" / "JPEGImages" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(path, "jpeg")
    (root / "train" / "instances.json").write_text(json.dumps(content))
    return root


def read(root):
    dataset = read_split(find_dataset(root).splits["train"])
    frames = [dataset.read_frame(video, 0) for video in dataset.videos]
    return dataset.categories, dataset.videos, dataset.objects, np.array(frames).tolist()


def test_odd_names_and_ids_are_packed(tmp_path):
    changes = (
        set_to("categories", 0, "name", to="seal\ud800\n"),
        set_to("categories", 1, "name", to="seal\ud800\n"),
        set_to("annotations", 0, "id", to=2**70),
        set_to("videos", 0, "file_names", to=["v7/\udcff.jpg", "v7/ñ.jpg"]),
    )
    root = write(tmp_path / "street", *changes)
    pack(root, tmp_path / "packed")
    assert read(tmp_path / "packed") == read(root)


def test_an_extension_in_another_case_is_packed(tmp_path):
    root = write(tmp_path / "street")
    content = annotations()
    content["videos"][0]["file_names"] = ["v7/0.JPG", "v7/1.JPG"]
    (root / "train" / "instances.json").write_text(json.dumps(content))
    pack(root, tmp_path / "packed")
    assert read(tmp_path / "packed") == read(root)


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", "10x10"])
def test_a_frame_that_training_refuses_is_refused_with_the_same_line(tmp_path, content):
    root = write(tmp_path / "street")
    path = root / "train" / "JPEGImages" / "v7" / "0.jpg"
    path.write_bytes(content) if isinstance(content, bytes) else Image.new("RGB", (10, 10)).save(path)
    lines = set()
    for run in (read, lambda root: pack(root, tmp_path / "packed")):
        with pytest.raises(UserError) as caught:
            run(root)
        lines.add(str(caught.value))
    assert len(lines) == 1 and not (tmp_path / "packed").exists()


def test_an_output_that_is_not_utf8_is_one_line(tmp_path):
    root = write(tmp_path / "street")
    with pytest.raises(UserError, match="is not UTF-8, as ArrayRecord needs; choose another --output"):
        pack(root, tmp_path / "\udcff")
