"""Reading and writing of evaluation files, and scoring of files from end to end."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from masktrack_jax.data.json_files import read_results
from masktrack_jax.evaluation.results import read_ground_truth, write_metrics, write_results
from masktrack_jax.evaluation.score import score, score_files
from masktrack_jax.evaluation.vis_ap import STATISTICS
from masktrack_jax.runtime.errors import UserError

CASES = Path(__file__).parent.parent / "cases" / "evaluation"


def test_score_files_writes_and_prints_the_metrics(tmp_path, capsys):
    output = tmp_path / "metrics.json"
    metrics = score_files(CASES / "case01_gt.json", CASES / "case01_pred.json", output)
    written = json.loads(output.read_text())
    expected = json.loads((CASES / "case01_expected.json").read_text())
    assert written == metrics
    assert [written[name] for name in STATISTICS] == pytest.approx(
        [None if value == -1 else value for value in expected["stats"]], abs=1e-9
    )
    assert written["per_category"]["parrot"]["AP"] == pytest.approx(0.3599009900990099, abs=1e-9)
    assert written["identity"]["per_category"]["parrot"].keys() == written["identity"]["pooled"].keys()
    assert written["HOTA"] == written["identity"]["pooled"]["HOTA"]
    printed = capsys.readouterr().out
    assert "AP50" in printed and "HOTA" in printed and "giant_panda" in printed and "–" in printed


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
        (b"", "broken json"),
        (b'{"videos": [', "line 1 column"),
        (b"\xff\xfe", "broken json"),
        (b"3", "expected"),
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


@pytest.mark.parametrize("annotations", [{}, {"annotations": None}, {"annotations": []}])
def test_public_files_without_labels_say_so(tmp_path, annotations):
    path = tmp_path / "valid.json"
    path.write_text(json.dumps({"videos": [], "categories": []} | annotations))
    with pytest.raises(UserError, match=r"valid\.json: has no annotations"):
        score_files(path, CASES / "case01_pred.json", tmp_path / "metrics.json")
    assert not (tmp_path / "metrics.json").exists()


def test_errors_name_the_file_and_write_nothing(tmp_path):
    results = tmp_path / "results.json"
    results.write_text('[{"video_id": 99, "category_id": 1, "score": 0.5, "segmentations": []}]')
    with pytest.raises(UserError, match=r"results\.json\[0\]: video_id 99"):
        score_files(CASES / "case01_gt.json", results, tmp_path / "metrics.json")
    assert not (tmp_path / "metrics.json").exists()


def test_imports_neither_jax_nor_torch():
    code = "import sys, masktrack_jax.evaluation.score; print({'jax', 'flax', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_videos_without_a_track_are_noted():
    video = {"length": 1, "height": 4, "width": 4}
    truth = {
        "videos": [{"id": i, **video} for i in (1, 2)],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": i, "video_id": i, "category_id": 1, "segmentations": [{"size": [4, 4], "counts": [0, 16]}]}
            for i in (1, 2)
        ],
    }
    track = {
        "video_id": 1,
        "category_id": 1,
        "score": 0.5,
        "segmentations": [{"size": [4, 4], "counts": "0`0"}],
    }
    assert score(truth, [track])["notes"][-1] == "1 of 2 labelled videos have no track, first id 2"
    assert not any("no track" in note for note in score(truth, [track, {**track, "video_id": 2}])["notes"])
