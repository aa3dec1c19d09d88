"""The scripts on the command line: invalid input gives one line, exit status 1 and no partial output."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from masktrack_jax.checkpoints.metadata import read_metadata
from masktrack_jax.video.files import open_video
from tests.helpers.configs import ROOT
from tests.helpers.scripts import ENVIRONMENT, Scripts


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with Scripts(tmp_path_factory.mktemp("outputs")) as scripts:
        yield scripts


def train_arguments(data, workdir, *more):
    overrides = {"train_annotations": data, "val_annotations": data}
    flags = [f"--config.data.{key}={value}" for key, value in overrides.items()]
    return ("--config", ROOT / "configs/tiny.py", "--workdir", workdir, *flags, *more)


def assert_one_line(outcome, *words):
    """One line on standard error, beginning with "error:" and naming what is wrong."""
    status, _, stderr = outcome
    assert status == 1, stderr
    (line,) = stderr.strip().splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line, line


@pytest.fixture(scope="module")
def trained(run, tiny_data, tmp_path_factory):
    """The folder of a run of configs/tiny.py made by train.py, and its two outputs."""
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    twice = "--config.train.evaluate_every=2"
    profile = "--profile=1"
    status, stdout, stderr = run("train.py", *train_arguments(tiny_data, workdir, twice, profile))
    assert status == 0, stderr
    return workdir, stdout, stderr


def test_train_leaves_what_it_says(trained):
    workdir, stdout, stderr = trained
    assert "AP50" in stdout
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    wanted = {"rpn_cls", "rpn_box", "cls", "box", "mask", "match"}
    assert {f"loss_{name}" for name in wanted} < rows[0].keys()
    others = {"match_accuracy", "learning_rate", "gradient_norm", "frames_per_second", "data_wait"}
    assert others < rows[0].keys()
    assert list((workdir / "tensorboard").iterdir())
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert {"AP", "AP50", "AP75", "APs", "APm", "APl", "per_category"} < metrics.keys()
    scored = [json.loads(line) for line in (workdir / "validation.jsonl").read_text().splitlines()]
    assert [row["step"] for row in scored] == [2, 4]
    assert stdout.count("APs") == 2, "not once more at the end"
    for name in ("AP", "AP50", "HOTA"):
        assert scored[-1][name] == metrics[name]
    assert re.search(
        r"^\d devices? \(cpu\), 1 process, 4 pairs = \d a device, float32$", stdout, re.MULTILINE
    )
    assert f"profile of 1 step: {workdir}/profile" in stdout
    assert len(list(workdir.glob("profile/plugins/profile/*/*.xplane.pb"))) == 1
    assert "compiling the training step for 64×96 …\nthe training step for 64×96: " in stderr
    assert stderr.count("compiling detection for") == 1, "the second evaluation has its program"
    assert read_metadata(workdir / "best").step == max(scored, key=lambda row: row["AP"])["step"]


def test_evaluate_repeats_the_scores_of_training(run, trained, tiny_data, tmp_path):
    workdir, *_ = trained
    overrides = f"--config.data.val_annotations={tiny_data}"
    outcome = run(
        "evaluate.py",
        *("--config", ROOT / "configs/tiny.py", overrides),
        *("--checkpoint", workdir, "--output", tmp_path / "metrics.json", "--diagnose"),
    )
    assert outcome[0] == 0, outcome[2]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics.pop("diagnosis")["AP"] == metrics["AP"]
    assert metrics == json.loads((workdir / "metrics.json").read_text())
    page = (tmp_path / "diagnosis.html").read_text()
    assert "<svg" in page and "data:image/jpeg" in page and "not found" not in page
    again = tmp_path / "again.json"
    files = ("--annotations", tiny_data, "--results", tmp_path / "results.json", "--output", again)
    assert run("evaluate.py", *files)[0] == 0
    assert again.read_text() == (workdir / "metrics.json").read_text()


def test_track_needs_nothing_but_the_checkpoint(run, trained, tiny_data, tmp_path):
    workdir, *_ = trained
    frames = tiny_data.parent / "JPEGImages" / "00000"
    out = tmp_path / "out"
    outcome = run(
        "track.py", "--checkpoint", workdir, "--input", frames, "--output", out, "--score-threshold", "0"
    )
    assert outcome[0] == 0, outcome[2]
    assert sorted(file.name for file in out.iterdir()) == ["frames.jsonl", "overlay.mp4", "results.json"]
    lines = (out / "frames.jsonl").read_text().splitlines()
    assert len(lines) == len(list(frames.iterdir()))
    assert json.loads(lines[0]).keys() >= {"boxes", "scores", "category_ids", "track_ids"}
    assert json.loads((out / "results.json").read_text())[0].keys() == {
        "video_id",
        "track_id",
        "category_id",
        "score",
        "segmentations",
    }


def test_track_goes_on_after_a_kill_to_the_same_results(run, trained, tiny_data, tmp_path):
    """A real network, killed between the saving after 100 frames and the end."""
    frames, images = tmp_path / "frames", sorted((tiny_data.parent / "JPEGImages").glob("*/*.jpg"))
    frames.mkdir()
    for index in range(240):
        shutil.copy(images[index // 2 % len(images)], frames / f"{index}.jpg")
    flags = ("--checkpoint", trained[0], "--input", frames, "--score-threshold", "0", "--max-detections", "4")
    assert run("track.py", *flags, "--output", tmp_path / "whole")[0] == 0
    output = tmp_path / "out"
    command = [sys.executable, ROOT / "track.py", *flags, "--output", output]
    environment = {**os.environ, **ENVIRONMENT}
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, env=environment)
    while process.poll() is None and not (output / "partial" / "state.npz").exists():
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL and not (output / "results.json").exists()
    assert_one_line(run("track.py", *flags[:-2], "--output", output), "out/partial", "other checkpoint")
    status, stdout, stderr = run("track.py", *flags, "--output", output)
    assert status == 0 and "resumes after" in stdout, stderr
    for name in ("frames.jsonl", "results.json"):
        assert (output / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert open_video(output / "overlay.mp4").length == 240
    assert len(json.loads((output / "results.json").read_text())) > 4


def test_track_and_evaluate_take_another_association(run, trained, tiny_data, tmp_path):
    """No detection scores 1, so nothing starts a track."""
    workdir, *_ = trained
    rules = ("similarity=cosine", "assignment=hungarian", "memory=bank", "new_score=1.0")
    flags = [f"--config.inference.association.{rule}" for rule in rules]
    flags.append("--config.inference.tracks.label=vote")
    frames = tiny_data.parent / "JPEGImages" / "00000"
    track = ("track.py", "--checkpoint", workdir, "--input", frames, "--output", tmp_path / "out")
    outcome = run(*track, *flags)
    assert outcome[0] == 0, outcome[2]
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == []
    data = f"--config.data.val_annotations={tiny_data}"
    evaluate = ("evaluate.py", "--config", ROOT / "configs/tiny.py", "--checkpoint", workdir, data)
    outcome = run(*evaluate, "--output", tmp_path / "metrics.json", *flags)
    assert outcome[0] == 0, outcome[2]
    assert json.loads((tmp_path / "results.json").read_text()) == []
    for script in (track, evaluate):
        wrong = run(*script, "--config.inference.association.memory=all")
        assert_one_line(wrong, "config.inference.association.memory", "'bank'")
    assert_one_line(run(*track, "--config.inference.association.memmory=bank"), "memmory")


def test_no_annotations_file(run, tmp_path):
    workdir = tmp_path / "run"
    assert_one_line(run("train.py", *train_arguments(tmp_path / "no.json", workdir)), "no.json")
    assert not list(workdir.glob("*"))


def test_unknown_config_key(run, tiny_data, tmp_path):
    assert_one_line(
        run("train.py", *train_arguments(tiny_data, tmp_path / "run", "--config.foo=1")), "no key foo;"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "flag, words",
    [
        ("--config.train.lr=1", "no key train.lr; did you mean optimizer.learning_rate?"),
        ("--config.train.bach_size=2", "no key train.bach_size; did you mean train.batch_size?"),
        ("--config.model.fpn.chanels", "no key model.fpn.chanels; did you mean model.fpn.channels?"),
        ("--config.foo=1", "no key foo; train.py --config FILE --print_config lists them all"),
    ],
)
def test_an_unknown_key_suggests_the_nearest(run, tiny_data, tmp_path, flag, words):
    assert_one_line(run("train.py", *train_arguments(tiny_data, tmp_path / "run", flag, "1")), words)
    assert not (tmp_path / "run").exists()


def test_track_sets_only_some_keys(run, tmp_path):
    track = ("track.py", "--input", "x", "--output", tmp_path / "out")
    words = "no key train.lr; only config.inference and config.model.dtype can be set here"
    assert_one_line(run(*track, "--config.train.lr=1"), words)
    assert_one_line(run(*track, "--config.model.dtyp=bfloat16"), "did you mean model.dtype?")


def test_a_run_needs_a_folder(run, tiny_data):
    assert_one_line(run("train.py", "--config", ROOT / "configs/tiny.py"), "--workdir")


def test_values_and_files_that_a_config_cannot_take(run, tiny_data, tmp_path):
    wrong = train_arguments(tiny_data, tmp_path / "run", "--config.train.steps=many")
    assert_one_line(run("train.py", *wrong), "many")
    assert_one_line(run("train.py", "--config", "no.py", "--workdir", tmp_path / "run"), "no.py")
    assert not (tmp_path / "run").exists()


def test_folder_that_cannot_be_written(run, tiny_data, tmp_path):
    (tmp_path / "file").touch()
    assert_one_line(run("train.py", *train_arguments(tiny_data, tmp_path / "file" / "run")), "file/run")


def test_checkpoint_of_another_network(run, trained, tiny_data):
    workdir, *_ = trained
    outcome = run(
        "evaluate.py",
        *("--config", ROOT / "configs/tiny.py", "--config.model.fpn.channels=24"),
        *("--checkpoint", workdir, f"--config.data.val_annotations={tiny_data}"),
    )
    assert_one_line(outcome, "another architecture")


def test_checkpoint_of_another_form(run, trained, tiny_data):
    workdir, *_ = trained
    outcome = run(
        "evaluate.py",
        *("--config", ROOT / "configs/tiny.py", "--config.model.anchors.centre=0.5"),
        *("--checkpoint", workdir, f"--config.data.val_annotations={tiny_data}"),
    )
    assert_one_line(outcome, "give a --config with that value")


@pytest.mark.parametrize("kind", ["missing", "empty folder", "not a video"])
def test_input_without_frames(run, trained, tmp_path, kind):
    video = tmp_path / "video.mp4"
    if kind == "empty folder":
        video.mkdir()
    elif kind == "not a video":
        video.write_bytes(np.random.default_rng(0).bytes(1000))
    arguments = ("--checkpoint", trained[0], "--input", video, "--output", tmp_path / "out")
    assert_one_line(run("track.py", *arguments), "video.mp4")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["syntax", "video", "size"])
def test_damaged_annotations(run, tiny_data, tmp_path, damage):
    shutil.copytree(tiny_data.parent, tmp_path / "data")
    path = tmp_path / "data" / "instances.json"
    content = json.loads(path.read_text())
    annotation = content["annotations"][0]
    if damage == "video":
        annotation["video_id"] = 99
    if damage == "size":
        segmentation = next(s for s in annotation["segmentations"] if s)
        segmentation["size"] = [3, 3]
    text = json.dumps(content)
    path.write_text(text[:-20] if damage == "syntax" else text)
    words = {"syntax": "line 1", "video": "99", "size": "3"}
    assert_one_line(
        run("train.py", *train_arguments(path, tmp_path / "run")), "instances.json", words[damage]
    )


def test_truncated_jpeg_in_training(run, tiny_data, tmp_path):
    shutil.copytree(tiny_data.parent, tmp_path / "data")
    frames = sorted((tmp_path / "data" / "JPEGImages").glob("*/*.jpg"))
    for frame in frames:
        frame.write_bytes(frame.read_bytes()[:400])
    arguments = train_arguments(tmp_path / "data" / "instances.json", tmp_path / "run")
    assert_one_line(run("train.py", *arguments), ".jpg")
