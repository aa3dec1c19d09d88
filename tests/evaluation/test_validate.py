"""The validator reports every kind of error with its own message; valid files pass and are zipped."""

import copy
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from masktrack_jax.evaluation import validate as command
from masktrack_jax.evaluation.validate import validate, write_zip
from masktrack_jax.runtime.errors import UserError

HEIGHT, WIDTH = 20, 30


def rle(x, y, w, h, height=HEIGHT, width=WIDTH):
    mask = np.zeros((height, width), np.uint8)
    mask[y : y + h, x : x + w] = 1
    counts = coco_mask.encode(np.asfortranarray(mask))["counts"].decode()
    return {"size": [height, width], "counts": counts}


MASK = rle(6, 4, 11, 8)
ANNOTATIONS = {
    "categories": [{"id": 1, "name": "ape"}, {"id": 2, "name": "seal"}],
    "videos": [
        {"id": i, "height": HEIGHT, "width": WIDTH, "length": 2, "file_names": [f"{i}/0.jpg", f"{i}/1.jpg"]}
        for i in (1, 2)
    ],
}


def track(**values):
    found = {"video_id": 1, "category_id": 1, "score": 0.5, "segmentations": [MASK, None]} | values
    return copy.deepcopy({key: value for key, value in found.items() if value != "absent"})


CLEAN = [track(), track(video_id=2, score=1, track_id=4), track(category_id=2, segmentations=[MASK, MASK])]


@pytest.fixture
def annotations(tmp_path):
    path = tmp_path / "valid.json"
    path.write_text(json.dumps(ANNOTATIONS))
    return path


def results(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    return path


def test_a_clean_file_is_zipped(annotations, tmp_path, capsys):
    path = results(tmp_path, CLEAN)
    findings = validate(path, annotations)
    assert findings.errors == {} and findings.notes == {}
    upload = tmp_path / "upload.zip"
    command.main([str(path), "--annotations", str(annotations), "--zip", str(upload)])
    assert capsys.readouterr().out == f"{path}: nothing wrong\n{upload}\n"
    with zipfile.ZipFile(upload) as archive:
        assert archive.namelist() == ["results.json"]
        assert archive.read("results.json") == path.read_bytes()
    findings = validate(upload, annotations)
    assert findings.errors == {} and findings.notes == {}
    again = tmp_path / "again.zip"
    write_zip(upload, again)
    assert again.read_bytes() == upload.read_bytes()
    assert sorted(x.name for x in tmp_path.iterdir()) == [
        "again.zip",
        "results.json",
        "upload.zip",
        "valid.json",
    ]


FAULTS = {
    "no video_id": (track(video_id="absent"), "tracks without `video_id`", "track 3"),
    "no category_id": (track(category_id="absent"), "tracks without `category_id`", "track 3"),
    "no score": (track(score="absent"), "tracks without `score`", "track 3"),
    "no segmentations": (track(segmentations="absent"), "tracks without `segmentations`", "track 3"),
    "video": (
        track(video_id=9),
        "tracks whose `video_id` is not in the annotations",
        "`video_id` 9, not",
    ),
    "video as text": (track(video_id="1"), "tracks whose `video_id` is not in the annotations", "'1' (text)"),
    "video as list": (track(video_id=[1]), "tracks whose `video_id` is not an id", "[1]"),
    "video half": (track(video_id=1.5), "tracks whose `video_id` is not an id", "1.5"),
    "category": (track(category_id=3), "tracks whose `category_id` is not in the annotations", "3"),
    "category bool": (
        track(category_id=True),
        "tracks whose `category_id` is not an id",
        "true",
    ),
    "score NaN": (track(score=float("nan")), "scores that are not finite numbers", "`score` nan"),
    "score infinite": (track(score=float("inf")), "scores that are not finite numbers", "`score` inf"),
    "score text": (track(score="0.5"), "scores that are not finite numbers", "`score` '0.5' (text)"),
    "score null": (track(score=None), "scores that are not finite numbers", "`score` null"),
    "score bool": (track(score=True), "scores that are not finite numbers", "`score` true"),
    "score huge": (track(score=10**400), "scores that are not finite numbers", "a number of 401 digits"),
    "short": (
        track(segmentations=[MASK]),
        "tracks shorter than their video",
        "has 1 `segmentations`, its video 2 frames",
    ),
    "long": (
        track(segmentations=[MASK, None, None]),
        "tracks longer than their video",
        "has 3 `segmentations`, its video 2 frames",
    ),
    "no list": (track(segmentations={}), "`segmentations` that are not lists", "an object, not a list"),
    "size": (
        track(segmentations=[None, rle(6, 4, 11, 8, WIDTH, HEIGHT)]),
        "masks whose size is not the video's",
        "frame 1: size [30, 20], with height and width swapped, the video has [20, 30] (height",
    ),
    "counts short": (
        track(segmentations=[MASK | {"size": [HEIGHT, WIDTH + 1]}, None]),
        "masks that cannot be decoded",
        "its runs cover 600 pixels, its size has 620",
    ),
    "counts cut": (
        track(segmentations=[MASK | {"counts": MASK["counts"] + "P"}, None]),
        "masks that cannot be decoded",
        "counts is not a complete RLE string",
    ),
    "counts number": (
        track(segmentations=[MASK | {"counts": 5}, None]),
        "masks that cannot be decoded",
        "int",
    ),
    "counts empty": (
        track(segmentations=[MASK | {"counts": []}, None]),
        "masks that cannot be decoded",
        "`counts` that are not a list of integers",
    ),
    "size of no frame": (
        track(segmentations=[MASK | {"size": [10**9, 10**9]}, None]),
        "masks that cannot be decoded",
        "more pixels than any camera",
    ),
    "mask without size": (
        track(segmentations=[{"counts": "0"}, None]),
        "masks that cannot be decoded",
        "`size` and `counts`",
    ),
    "mask text": (track(segmentations=["x", None]), "masks that cannot be decoded", "polygons"),
    "runs": (
        track(segmentations=[{"size": [HEIGHT, WIDTH], "counts": [10, 590]}, None]),
        "masks that are not compressed RLE",
        "counts as a list",
    ),
    "polygons": (
        track(segmentations=[[[1, 1, 5, 1, 5, 5]], None]),
        "masks that are not compressed RLE",
        "polygons",
    ),
    "all null": (track(segmentations=[None, None]), "tracks without a mask in any frame", "all null"),
    "twice": (track(), "tracks written twice", "the same as track 0"),
    "no object": ("track", "tracks that are not objects", "track 3: 'track'"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_has_its_message(annotations, tmp_path, name):
    fault, kind, words = FAULTS[name]
    findings = validate(results(tmp_path, [*CLEAN, fault]), annotations)
    assert list(findings.errors) == [kind], findings.lines()
    count, examples = findings.errors[kind]
    assert count == 1 and examples[0].startswith("track 3") and words in examples[0]


def test_everything_wrong_at_once(annotations, tmp_path):
    path = results(tmp_path, [*CLEAN, *(fault for fault, _, _ in FAULTS.values())])
    upload = tmp_path / "upload.zip"
    arguments = [str(path), "--annotations", str(annotations), "--zip", str(upload)]
    done = subprocess.run(
        [sys.executable, "-m", "masktrack_jax.evaluation.validate", *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    kinds = [kind for _, kind, _ in FAULTS.values()]
    for kind in kinds:
        assert f"error: {kinds.count(kind)} × {kind}\n" in done.stdout, kind
    assert done.stderr == f"error: {path}: {len(FAULTS)} errors; {upload} not written\n"
    assert not upload.exists()


def test_two_bad_masks_of_a_track_are_both_found(annotations, tmp_path):
    bad = MASK | {"counts": "P"}
    findings = validate(results(tmp_path, [track(segmentations=[bad, bad])]), annotations)
    assert findings.errors["masks that cannot be decoded"][0] == 2
    assert findings.notes.keys() == {"videos without tracks"}


@pytest.mark.parametrize(
    "content, kind", [([], "no tracks"), ({"a": 1}, "content that is not a list of tracks")]
)
def test_content_that_is_no_list_of_tracks(annotations, tmp_path, content, kind):
    assert list(validate(results(tmp_path, content), annotations).errors) == [kind]


def test_notes_are_no_faults(annotations, tmp_path, capsys):
    rows = [track(score=i / 200, segmentations=[rle(i % 25, i // 25, 3, 3), None]) for i in range(101)]
    rows += [track(score=2.0, segmentations=rows[0]["segmentations"])]
    rows += [
        track(category_id=2, segmentations=[MASK, []]),
        track(category_id=2, segmentations=[MASK, rle(0, 0, 0, 0)]),
    ]
    path = results(tmp_path, rows)
    command.main([str(path), "--annotations", str(annotations)])
    printed = capsys.readouterr().out
    for line in [
        "note: 1 × scores outside 0 to 1\n",
        "note: 1 × tracks with the same masks and another score\n"
        "    track 101 (video 1): the masks of track 0\n",
        "note: 1 × absent masks not written as null\n    track 102 (video 1), frame 1: []\n",
        "note: 1 × masks without a pixel\n    track 103 (video 1), frame 1",
        "note: 1 × videos with more than 100 tracks of a category\n    video 1, category 1: 102 tracks; the",
        "note: 1 × videos without tracks\n    video 2\n",
    ]:
        assert line in printed, printed
    assert "error" not in printed and printed.endswith("nothing wrong\n")


def zipped(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/") + ".json", json.dumps(content))
    return path


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_text_that_the_server_cannot_read_is_an_error(annotations, tmp_path, encoding):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([track()]), encoding=encoding)
    assert list(validate(path, annotations).errors) == ["text that the server cannot read"]


def test_zips_must_hold_the_file_at_their_root(annotations, tmp_path):
    folder = zipped(tmp_path / "folder.zip", out__results=CLEAN)
    findings = validate(folder, annotations)
    assert list(findings.errors) == ["zip without results.json at its root"]
    assert findings.errors["zip without results.json at its root"][1] == [
        "it is at out/results.json; zip the file alone"
    ]
    several = validate(zipped(tmp_path / "two.zip", results=CLEAN, out__results=CLEAN), annotations)
    assert list(several.errors) == ["zip with several results.json"]
    more = validate(zipped(tmp_path / "more.zip", results=CLEAN, config={}), annotations)
    assert more.errors == {} and more.notes["other files in the zip"][1] == ["config.json"]
    bad = validate(zipped(tmp_path / "bad.zip", results=[track(video_id=9)]), annotations)
    assert list(bad.errors) == ["tracks whose `video_id` is not in the annotations"]


def test_unreadable_files_are_one_line(annotations, tmp_path):
    whole = zipped(tmp_path / "whole.zip", results=CLEAN).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:100])
    (tmp_path / "flipped.zip").write_bytes(whole.replace(b"score", b"scorf", 1))
    (tmp_path / "broken.json").write_text("[{")
    zipped(tmp_path / "none.zip", other=CLEAN)
    for given, match in [
        (tmp_path / "cut.zip", "cannot be unpacked"),
        (tmp_path / "flipped.zip", r"cannot be unpacked \(Bad CRC"),
        (tmp_path / "none.zip", r"holds no results\.json \(it holds other\.json\)"),
        (tmp_path / "missing.zip", "cannot be read"),
        (tmp_path / "missing.json", "cannot be read"),
        (tmp_path / "broken.json", "is not valid JSON"),
    ]:
        with pytest.raises(UserError, match=match) as caught:
            validate(given, annotations)
        assert given.name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"results\.json: is not an object with `videos`"):
        validate(annotations, results(tmp_path, CLEAN))


def test_a_zip_that_cannot_be_written_leaves_nothing(tmp_path):
    path = results(tmp_path, CLEAN)
    (tmp_path / "folder").mkdir()
    for target in (tmp_path / "folder", path / "results.zip"):
        with pytest.raises(UserError, match="cannot be written"):
            write_zip(path, target)
    assert sorted(x.name for x in tmp_path.iterdir()) == ["folder", "results.json"]


def test_imports_neither_jax_nor_torch():
    code = "import sys, masktrack_jax.evaluation.validate; print({'jax', 'flax', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
