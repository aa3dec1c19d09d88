"""The linter: a data set with every fault in it, each reported by its own message, and clean ones."""

import copy
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from masktrack_jax.data.images import check_image, read_image
from masktrack_jax.data.lint import __main__ as command
from masktrack_jax.data.lint.dataset import lint
from masktrack_jax.data.vis import read_vis
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.findings import Findings

HEIGHT, WIDTH = 20, 30
BOX = [6, 4, 11, 8]


def rle(x, y, w, h, height=HEIGHT, width=WIDTH):
    mask = np.zeros((height, width), np.uint8)
    mask[y : y + h, x : x + w] = 1
    counts = coco_mask.encode(np.asfortranarray(mask))["counts"].decode()
    return {"size": [height, width], "counts": counts}


def annotation(number, video_id=1, category_id=1, **more):
    record = {"id": number, "video_id": video_id, "category_id": category_id, "iscrowd": 0}
    record |= {"segmentations": [rle(*BOX), None], "bboxes": [BOX, None], "areas": [88, None]}
    return record | more


def clean():
    videos = [
        {"id": i, "height": HEIGHT, "width": WIDTH, "length": 2, "file_names": [f"v{i}/0.png", f"v{i}/1.png"]}
        for i in (1, 2)
    ]
    categories = [{"id": 1, "name": "ape"}, {"id": 2, "name": "seal"}]
    polygon = [[6, 4, 17, 4, 17, 12, 6, 12]]
    return {
        "categories": categories,
        "videos": videos,
        "annotations": [annotation(1), annotation(2, 2, 2, segmentations=[polygon, None])],
    }


def write(tmp_path, content):
    """A data set on disk: the file and every frame it names."""
    for video in content["videos"]:
        for name in video.get("file_names", ()):
            path = tmp_path / "JPEGImages" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)).save(
                path
            )
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    return path


def test_a_clean_data_set(tmp_path, capsys):
    path = write(tmp_path, clean())
    findings = lint(path)
    assert findings.errors == {} and findings.notes == {}
    command.main([str(path)])
    assert capsys.readouterr().out == f"{path}: nothing wrong\n"


def test_what_the_generator_writes_is_clean(tiny_data):
    findings = lint(tiny_data)
    assert findings.errors == {} and findings.notes.keys() <= {"categories without objects"}


# name: (what is done to the clean file, kind of the error, words of its example)
FAULTS = {
    "no videos": (lambda x: x.pop("videos"), "missing lists", "no list `videos`"),
    "no categories": (lambda x: x.update(categories={}), "missing lists", "no list `categories`"),
    "annotations": (lambda x: x.update(annotations={"a": 1}), "missing lists", "no list `annotations`"),
    "no object": (lambda x: x["videos"].append(7), "records that are not objects", "videos number 3: 7"),
    "category id": (lambda x: x["categories"].append({"id": 1, "name": "x"}), "duplicate ids", "category 1"),
    "video id": (lambda x: x["videos"].append(x["videos"][0]), "duplicate ids", "video 1 appears again"),
    "object id": (lambda x: x["annotations"].append(x["annotations"][0]), "duplicate ids", "annotation 1"),
    "text id": (lambda x: x["videos"].append({"id": "7"}), "missing ids", "video number 3"),
    "no name": (lambda x: x["categories"][0].pop("name"), "categories without a name", "category 1"),
    "same name": (lambda x: x["categories"][0].update(name="seal"), "category names used twice", "1 and 2"),
    "video height": (lambda x: x["videos"][0].update(height=0), "videos without a size", "video 1: height 0"),
    "video width": (
        lambda x: x["videos"][0].update(width=10**9),
        "videos without a size",
        "width 1000000000",
    ),
    "frames": (lambda x: x["videos"][0].update(file_names=[]), "videos without frames", "video 1"),
    "length": (lambda x: x["videos"][0].update(length=3), "wrong lengths", "`length` 3 but 2 `file_names`"),
    "frame twice": (
        lambda x: x["videos"][0].update(file_names=["v1/0.png", "v2/1.png"]),
        "frames used twice",
        "v2/1.png, also of video 1",
    ),
}


def change(**values):
    return lambda content: content["annotations"][0].update(copy.deepcopy(values))


def drop(key):
    return lambda content: content["annotations"][0].pop(key)


FAULTS |= {
    "no video_id": (drop("video_id"), "missing keys", "annotation 1 has no `video_id`"),
    "no category_id": (drop("category_id"), "missing keys", "annotation 1 has no `category_id`"),
    "no segmentations": (drop("segmentations"), "missing keys", "annotation 1 has no `segmentations`"),
    "unknown video": (change(video_id=9), "unknown ids", "annotation 1: video_id 9 is not"),
    "unknown category": (change(category_id=9), "unknown ids", "annotation 1: category_id 9 is not"),
    "crowd": (change(iscrowd=2), "crowd flags other than 0 and 1", "annotation 1: iscrowd 2"),
    "segmentations": (change(segmentations=[None]), "wrong lengths", "1 entries in `segmentations`"),
    "bboxes": (change(bboxes=[BOX]), "wrong lengths", "1 entries in `bboxes`"),
    "areas": (change(areas=[88] * 3), "wrong lengths", "3 entries in `areas`"),
    "no list": (change(segmentations="x"), "wrong lengths", "`segmentations` is no list"),
    "object length": (change(length=5), "wrong lengths", "`length` 5, its video has 2"),
    "object height": (change(height=5), "sizes that disagree", "`height` 5, its video has 20"),
    "mask size": (
        change(segmentations=[rle(*BOX, 21, 30), None]),
        "masks whose size is not their video's",
        "annotation 1, frame 0 has RLE of size [21, 30]",
    ),
    "mask cut": (
        change(segmentations=[rle(*BOX) | {"counts": rle(*BOX)["counts"][:-1]}, None]),
        "masks that cannot be read",
        "annotation 1, frame 0 has compressed RLE",
    ),
    "mask kind": (change(segmentations=[5, None]), "masks that cannot be read", "neither RLE"),
    "mask outside": (
        change(segmentations=[[[6, 4, 33, 4, 33, 12]], None]),
        "masks out of the frame",
        "from (6, 4) to (33, 12) in a frame of 30x20",
    ),
    "mask far away": (
        change(segmentations=[[[6, 4, 1e30, 4, 33, 12]], None]),
        "masks that cannot be read",
        "polygon far out of any frame",
    ),
    "empty": (
        change(segmentations=[None, None], bboxes=[None, None], areas=[None, None]),
        "objects without a pixel in any frame",
        "annotation 1",
    ),
    "empty mask": (
        change(segmentations=[rle(0, 0, 0, 0), None], bboxes=[[0, 0, 0, 0], None], areas=[0, None]),
        "objects without a pixel in any frame",
        "annotation 1",
    ),
    "box beside": (
        change(bboxes=[[8, 4, 11, 8], None]),
        "boxes that do not fit their masks",
        "annotation 1, frame 0: box [8, 4, 11, 8], the mask's is [6.0, 4.0, 11.0, 8.0]",
    ),
    "box as corners": (change(bboxes=[[6, 4, 17, 12], None]), "boxes that do not fit their masks", "frame 0"),
    "box outside": (change(bboxes=[[6, 4, 26, 8], None]), "boxes out of the frame", "in a frame of 30x20"),
    "box negative": (
        change(bboxes=[[6, 4, -1, 8], None]),
        "boxes that are not x, y, width, height",
        "of negative size",
    ),
    "box null": (change(bboxes=[None, None]), "boxes that are not x, y, width, height", "frame 0: box None"),
    "box alone": (change(bboxes=[BOX, BOX]), "boxes or areas without a mask", "frame 1: box [6, 4, 11, 8]"),
    "area": (
        change(areas=[99, None]),
        "areas that do not fit their masks",
        "area 99, the mask has 88 pixels",
    ),
    "area null": (change(areas=[None, None]), "areas that are not numbers", "area None"),
    "area alone": (change(areas=[88, 5]), "boxes or areas without a mask", "frame 1: area 5"),
}


def found(findings, kind, words):
    return any(words in example for example in findings.errors.get(kind, (0, []))[1])


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


def broken_frames(root):
    """Frames of a clean data set, each spoiled in its own way."""
    (root / "v1" / "0.png").unlink()
    whole = (root / "v1" / "1.png").read_bytes()
    (root / "v1" / "1.png").write_bytes(whole[: len(whole) // 2])
    (root / "v2" / "0.png").write_text("no image")
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(root / "v2" / "1.png")


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
        {"id": 5, "height": 20, "width": 30, "length": 3, "file_names": ["v1/0.png"]},
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
    assert "note: 1 × masks without a pixel\n    annotation 1, frame 1" in printed
    assert printed.endswith("nothing wrong\n")


def test_public_files_without_labels_and_frames(tmp_path):
    content = clean()
    del content["annotations"]
    path = tmp_path / "valid.json"
    path.write_text(json.dumps(content))
    findings = lint(path)
    assert findings.errors == {} and findings.notes.keys() == {"no annotations", "frames not looked at"}
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


def test_findings_keep_counts_and_the_first_examples():
    findings = Findings()
    for number in range(5):
        findings.error("odd things", f"thing {number}\nof two lines")
    findings.note("fine things", "one")
    assert findings.num_errors == 5
    assert findings.lines() == [
        "error: 5 × odd things",
        *(f"    thing {number} of two lines" for number in range(3)),
        "    … and 2 more",
        "note: 1 × fine things",
        "    one",
    ]


@pytest.mark.parametrize("orientation", [None, 3, 6, 8])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_check_image_says_what_read_image_would(tmp_path, suffix, orientation):
    path = tmp_path / f"image.{suffix}"
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 255, (90, 130, 3), np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)
    assert check_image(path) == read_image(path).shape[:2]
    whole = path.read_bytes()
    for cut in (1000, len(whole) // 2, len(whole) - 300):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError, match="cannot be read as an image"):
            check_image(path)
