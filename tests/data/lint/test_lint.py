"""The linter on clean data sets and on one with every fault: each fault is reported by its own message."""

import copy
import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from masktrack_jax.data.lint import __main__ as command
from masktrack_jax.data.lint.dataset import lint
from masktrack_jax.data.vis import read_vis
from masktrack_jax.runtime.errors import UserError
from tests.helpers.annotations import HEIGHT, WIDTH
from tests.helpers.lint_faults import BOX, FAULTS, annotation, broken_frames, clean, found, rle, write


def test_a_clean_data_set(tmp_path, capsys):
    path = write(tmp_path, clean())
    findings = lint(path)
    assert findings.errors == {} and findings.notes == {}
    command.main([str(path)])
    assert capsys.readouterr().out == f"{path}: nothing wrong\n"


def test_what_the_generator_writes_is_clean(tiny_data):
    findings = lint(tiny_data)
    assert findings.errors == {} and findings.notes.keys() <= {"categories without objects"}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_has_its_message(tmp_path, name):
    fault, kind, words = FAULTS[name]
    path = write(tmp_path, clean())
    content = clean()
    fault(content)
    path.write_text(json.dumps(content))
    findings = lint(path)
    assert found(findings, kind, words), findings.lines()


def test_whatever_the_reader_refuses_is_found(tmp_path):
    refused = 0
    for fault, kind, _ in FAULTS.values():
        content = clean()
        fault(content)
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(content))
        try:
            read_vis(path)
        except UserError:
            refused += 1
            assert kind in lint(path).errors
    assert refused > 15


def test_each_broken_frame_has_its_message(tmp_path):
    path = write(tmp_path, clean())
    broken_frames(tmp_path / "JPEGImages")
    findings = lint(path, tmp_path / "JPEGImages")
    assert found(findings, "missing images", "v1/0.png: no such image")
    assert found(
        findings, "images that cannot be read", "v1/1.png: cannot be read as an image (image file is"
    )
    assert found(findings, "images that cannot be read", "v2/0.png: cannot be read as an image (cannot")
    assert found(findings, "images whose size is not their video's", "video 2: v2/1.png is 21x30")
    assert findings.num_errors == 4


def test_everything_wrong_at_once(tmp_path):
    """One file with faults of every kind that can stand together, and all of them in one report."""
    content = clean()
    lists = {"no videos", "no categories", "annotations"}
    template = clean()["annotations"][0]
    together = {}
    for name, (fault, kind, _) in FAULTS.items():
        if name in lists:
            continue
        together[kind] = together.get(kind, 0) + 1
        if fault.__qualname__.startswith(("change", "drop")):
            one = {"annotations": [copy.deepcopy(template)]}
            fault(one)
            content["annotations"].append(one["annotations"][0] | {"id": 100 + len(content["annotations"])})
    content["videos"] += [
        7,
        content["videos"][0],
        {"id": "7"},
        {"id": 3, "height": 0, "width": 1, "file_names": ["v3/0.png"]},
        {"id": 4, "height": 20, "width": 30, "file_names": []},
        {"id": 5, "height": 20, "width": 30, "file_names": ["v1/0.png"]},
        {"id": 6, "height": 20, "width": 30, "length": 3, "file_names": ["v6/0.png"]},
    ]
    content["categories"] += [{"id": 1, "name": "x"}, {"id": 5}, {"id": 9, "name": "seal"}]
    path = write(tmp_path, clean())
    path.write_text(json.dumps(content))
    broken_frames(tmp_path / "JPEGImages")
    done = subprocess.run(
        [sys.executable, "-m", "masktrack_jax.data.lint", str(path)], capture_output=True, text=True
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    kinds = set(together) | {
        "missing images",
        "images that cannot be read",
        "images whose size is not their video's",
    }
    for kind in kinds:
        assert f"× {kind}\n" in done.stdout, kind
    for note in ("videos without labels", "gaps in the category ids", "categories without objects"):
        assert f"× {note}\n" in done.stdout, note
    assert done.stderr.splitlines()[-1] == f"error: {path}: {lint(path).num_errors} errors"
    with pytest.raises(UserError, match=r"is a folder; give the annotations file"):
        lint(tmp_path)


def test_notes_are_no_faults(tmp_path, capsys):
    content = clean()
    content["categories"][1]["id"] = 7
    content["annotations"] = [annotation(1)]
    content["annotations"][0]["segmentations"][1] = rle(0, 0, 0, 0)
    content["annotations"][0] |= {"bboxes": [BOX, [0, 0, 0, 0]], "areas": [88, 0]}
    path = write(tmp_path, content)
    command.main([str(path)])
    printed = capsys.readouterr().out
    assert "note: 1 × gaps in the category ids\n    5 of 1 to 7 are missing, first 2, 3, 4, 5, 6\n" in printed
    assert "note: 1 × videos without labels\n    video 2\n" in printed
    assert "note: 1 × categories without objects\n    category 7 'seal'\n" in printed
    assert "note: 1 × masks without a pixel, left out\n    annotation 1, frame 1" in printed
    assert printed.endswith("nothing wrong\n")


def test_public_files_without_labels_and_frames(tmp_path):
    content = clean()
    del content["annotations"]
    path = tmp_path / "valid.json"
    path.write_text(json.dumps(content))
    findings = lint(path)
    assert findings.errors == {} and findings.notes.keys() == {"no annotations", "frames not checked"}
    with pytest.raises(UserError, match="no such folder; check --frames"):
        lint(path, tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["[]", "{", "7"])
def test_no_json_object_is_one_line(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError) as caught:
        lint(tmp_path / "a.json")
    assert "a.json" in str(caught.value) and "\n" not in str(caught.value)


def test_small_differences_are_no_faults(tmp_path):
    content = clean()
    content["annotations"][0] |= {"bboxes": [[6, 4, 10, 7], None]}  # to the last pixel
    content["annotations"][1] |= {"areas": [80.5, None]}  # of the polygon
    content["annotations"][1] |= {"length": 1}  # as the published files have it
    assert lint(write(tmp_path, content)).errors == {}


def test_what_training_leaves_out_is_noted(tmp_path):
    content = clean()
    content["annotations"][0] |= {"iscrowd": 1, "areas": [0, None]}
    content["annotations"][1] |= {"segmentations": [[[6, 4, 17, 4, 17, 12, 6, 12]], []]}
    findings = lint(write(tmp_path, content))
    for kind, example in (
        ("crowds, left out", "annotation 1"),
        ("areas of 0 or less beside masks, taken from the masks", "frame 0: area 0 but a mask of 88 pixels"),
        ("absent masks not written as null", "annotation 2, frame 1: []"),
    ):
        assert example in findings.notes[kind].examples[0]


def test_odd_files_among_the_frames_are_named_and_never_waited_for(tmp_path):
    path = write(tmp_path, clean())
    frames = tmp_path / "JPEGImages"
    for name in ("v1/0.png", "v1/1.png", "v2/0.png", "v2/1.png"):
        (frames / name).unlink()
    os.mkfifo(frames / "v1" / "0.png")
    (frames / "v1" / "1.png").symlink_to("gone.png")
    exif = Image.Exif()
    for name, orientation in (("v2/0.png", 6), ("v2/1.png", 3)):
        exif[0x0112] = orientation
        Image.new("RGB", (WIDTH, HEIGHT)).save(frames / name, exif=exif)
    findings = lint(path)
    assert found(findings, "images that cannot be read", "v1/0.png: is no file but a folder, pipe or device")
    assert found(findings, "missing images", "v1/1.png: is a link to gone.png, which does not exist")
    assert found(
        findings, "images whose size is not their video's", "30x20 (height x width), EXIF orientation 6"
    )
    assert "v2/1.png, EXIF orientation 3" in findings.notes["images that EXIF data turn"].examples[0]


def test_frames_may_be_named_from_the_folder_of_the_file(tmp_path):
    content = clean()
    for video in content["videos"]:
        video["file_names"] = [f"JPEGImages/{name}" for name in video["file_names"]]
    path = write(tmp_path, clean())
    path.write_text(json.dumps(content))
    assert read_vis(path).frames_root == tmp_path
    assert lint(path).lines() == lint(write(tmp_path, clean())).lines()
