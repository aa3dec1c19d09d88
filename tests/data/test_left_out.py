"""What training leaves out or reads in another way is said at its start, with kinds and counts."""

import json

import numpy as np
import pytest

from masktrack_jax.data.pairs import candidates
from masktrack_jax.data.splits import training_split
from masktrack_jax.data.vis import read_vis
from masktrack_jax.runtime.errors import UserError
from tests.helpers.annotations import annotations, compressed
from tests.helpers.configs import load_config


def start(tmp_path, content):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    config = load_config("tiny")
    config.data.update({"train_annotations": str(path), "val_annotations": ""})
    return training_split(config)


def test_one_line_counts_each_kind(tmp_path, capsys):
    content = annotations()
    (first,) = content["annotations"]
    empty = compressed(np.zeros((20, 30), np.uint8))
    content["annotations"] += [
        first | {"id": 2, "areas": [0, None]},
        first | {"id": 3, "areas": [0, None], "bboxes": [[6, 4, 17, 12], None]},
        first | {"id": 4, "iscrowd": 1, "bboxes": [[6, 4, 11, 8], [6, 4, 11, 8]]},
        first | {"id": 5, "segmentations": [None, empty], "areas": [None, 0], "bboxes": [None, [0, 0, 0, 0]]},
    ]
    dataset = start(tmp_path, content)
    assert len(candidates(dataset)) == 1 and len(dataset.objects[7]) == 5
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert line.removeprefix(f"note: {tmp_path / 'instances.json'}: ").split("; ") == [
        "2 × areas of 0 or less beside masks, taken from the masks "
        "(annotation 2, frame 0: area 0 but a mask of 88 pixels)",
        "1 × boxes that do not fit their masks, taken from the masks "
        "(annotation 3, frame 0: box [6, 4, 17, 12], the mask's is [6.0, 4.0, 11.0, 8.0])",
        "1 × boxes without a mask, left out (annotation 4, frame 1: box [6, 4, 11, 8])",
        "1 × crowds, left out (annotation 4)",
        "1 × masks without a pixel, left out (annotation 5, frame 1: write null instead)",
        "1 × objects without a box in any frame, left out (annotation 5)",
    ]


def test_nothing_is_said_of_a_clean_file(tmp_path, capsys):
    start(tmp_path, annotations())
    assert "note" not in capsys.readouterr().out


def test_where_everything_falls_out_the_error_names_the_cause(tmp_path):
    content = annotations()
    content["annotations"][0]["iscrowd"] = 1
    dataset = start(tmp_path, content)
    cause = r"instances\.json: no frame has a .* to train on: 1 × crowds, left out \(annotation 1\)"
    with pytest.raises(UserError, match=cause):
        candidates(dataset)
    content["annotations"][0] |= {"iscrowd": 0, "video_id": 3}
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    dataset = read_vis(path)
    with pytest.raises(UserError, match="nothing to train on: none of its 1 videos has an object"):
        candidates(dataset.only(dataset.videos[:1]))
