"""Results files survive a round trip, are written atomically, and unreadable files give one-line errors."""

import numpy as np
import pytest

from masktrack_jax.data.json_files import read_results
from masktrack_jax.evaluation.results import read_ground_truth, write_metrics, write_results
from masktrack_jax.runtime.errors import UserError


def test_results_round_trip(tmp_path):
    path = tmp_path / "results.json"
    rle = {"size": [2, 2], "counts": b"04"}
    write_results(
        path,
        [
            {
                "video_id": np.int64(1),
                "track_id": 3,
                "category_id": 2,
                "score": np.float32(0.5),
                "segmentations": [rle, None],
            }
        ],
    )
    track = read_results(path)[0]
    assert track["score"] == 0.5 and track["track_id"] == 3
    assert track["segmentations"] == [{"size": [2, 2], "counts": "04"}, None]
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("[]")
    for content in ([{"score": float("nan")}], [{"score": object()}]):
        with pytest.raises(UserError, match=r"results\.json: not written"):
            write_results(path, content)
    assert path.read_text() == "[]" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(UserError, match="cannot be written"):
        write_metrics(path / "metrics.json", {})
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        write_metrics(tmp_path / "folder", {})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "results.json"]


@pytest.mark.parametrize(
    "content, word",
    [
        (None, "cannot be read"),
        (b"", "is empty"),
        (b'{"videos": [', "line 1 column"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"3", "is not a"),
    ],
)
@pytest.mark.parametrize("read", [read_ground_truth, read_results])
def test_unreadable_json_is_one_line(tmp_path, read, content, word):
    path = tmp_path / "file.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read(path)
    assert word in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)
