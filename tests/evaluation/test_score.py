"""Scoring from files to metrics.json, table and page, against the recorded numbers of the official code."""

import json
import os
import subprocess
import sys

import pytest

from masktrack_jax.evaluation.diagnosis.corrections import CORRECTIONS
from masktrack_jax.evaluation.diagnosis.report import format_diagnosis
from masktrack_jax.evaluation.score import score, score_files
from masktrack_jax.evaluation.vis_ap import STATISTICS
from masktrack_jax.runtime.errors import UserError
from tests.helpers.configs import ROOT
from tests.helpers.diagnosis import BOTTOM, CAT, CAT_AND_DOG, TOP, track, write_frames
from tests.helpers.evaluation import CASES


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
    with pytest.raises(UserError, match=r"results\.json: track 0 \(video 99\) has `video_id` 99, not one of"):
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


# Diagnosis.


def write_problem(folder, results):
    paths = folder / "instances.json", folder / "results.json"
    for path, content in zip(paths, (CAT_AND_DOG, results)):
        path.write_text(json.dumps(content))
    return paths


def test_score_files_writes_page_and_json(tmp_path, capsys):
    write_frames(tmp_path / "JPEGImages")
    paths = write_problem(tmp_path, [track(TOP), track(BOTTOM, CAT)])
    metrics = score_files(*paths, tmp_path / "metrics.json", diagnosed=True)
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert metrics["diagnosis"]["AP"] == metrics["AP"]
    assert "not found" not in (tmp_path / "diagnosis.html").read_text(), "JPEGImages beside the labels"
    printed = capsys.readouterr().out
    assert format_diagnosis(metrics["diagnosis"]) in printed and "diagnosis.html" in printed
    assert all(name in printed for name in CORRECTIONS)
    assert "diagnosis" not in score_files(*paths)


def test_a_page_that_cannot_be_written_is_one_line(tmp_path):
    paths = write_problem(tmp_path, [track(TOP)])
    (tmp_path / "diagnosis.html").mkdir()
    with pytest.raises(UserError, match=r"diagnosis\.html: cannot be written"):
        score_files(*paths, tmp_path / "metrics.json", diagnosed=True)
    assert not list(tmp_path.glob("*.tmp"))


def test_the_script_diagnoses(tmp_path):
    write_frames(tmp_path / "elsewhere")
    truth, results = write_problem(tmp_path, [track(TOP)])
    flags = ["--annotations", truth, "--results", results, "--output", tmp_path / "metrics.json"]
    command = [sys.executable, ROOT / "evaluate.py", *flags, "--diagnose", "--frames", tmp_path / "elsewhere"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "finding missed objects" in done.stdout
    assert "not found" not in (tmp_path / "diagnosis.html").read_text()
