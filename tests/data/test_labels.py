"""One check for all: every command reads a file of labels alike, or refuses it with the same line."""

import json

import numpy as np
import pytest

from masktrack_jax.data.json_files import read_labels
from masktrack_jax.data.labels import ABSENT, BROKEN, LabelsFile, check_labels
from masktrack_jax.data.lint.dataset import lint
from masktrack_jax.data.pairs import candidates
from masktrack_jax.data.vis import read_vis
from masktrack_jax.evaluation.score import score_files
from masktrack_jax.evaluation.validate import validate
from masktrack_jax.runtime.errors import UserError
from tests.helpers.annotations import annotations, cocovid, compressed, object_mask, set_to, without

HUGE = 10**400
TRACKS = [{"video_id": 7, "category_id": 9, "score": 0.5, "segmentations": [compressed(object_mask()), None]}]


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(TRACKS))
    return path


def write(tmp_path, *changes):
    content = annotations()
    for change in changes:
        change(content)
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    return path


def of(table, *keys, to):
    """A change of the first record of a list."""
    return set_to(table, 0, *keys, to=to)


def mask(to):
    return of("annotations", "segmentations", 0, to=to)


RLE = compressed(object_mask())
REFUSED = {
    "length as text": (of("videos", "length", to="2"), "has `length` '2' (text), expected a whole number"),
    "height as text": (of("videos", "height", to="20"), "has `height` '20' (text), expected a whole number"),
    "negative height": (
        of("videos", "height", to=-64),
        "has `height` -64, expected a whole number from 1 on",
    ),
    "height of a boolean": (of("videos", "height", to=True), "has `height` true, expected a whole number"),
    "half a pixel": (of("videos", "height", to=20.5), "has `height` 20.5, expected a whole number"),
    "10^400 pixels": (of("videos", "width", to=HUGE), "has `width` a number of 401 digits, expected"),
    "huge frames": (
        of("videos", "height", to=10**9),
        "has frames of 1000000000 x 30, more than any camera's",
    ),
    "wrong length": (of("videos", "length", to=3), "has `length` 3 but 2 `file_names`"),
    "frames as numbers": (of("videos", "file_names", to=[1, 2]), "has 1 in `file_names`, expected names"),
    "name of a number": (of("videos", "name", to=3), "video 7 has `name` 3, which is not text"),
    "no size": (without("videos", 0, "height"), "video 7 has no `height`"),
    "id of a boolean": (of("videos", "id", to=True), "video number 1 has `id` true, expected a whole number"),
    "huge id": (of("categories", "id", to=HUGE), "has `id` a number of 401 digits, expected a whole number"),
    "category id as text": (
        of("categories", "id", to="9"),
        "category number 1 has `id` '9' (text), expected",
    ),
    "ids of two types": (of("videos", "id", to="x"), "video number 2 has `id` 3, but those before it are of"),
    "empty category name": (of("categories", "name", to=""), "category 9 has `name` '', which is empty"),
    "id of 2^70": (of("videos", "id", to=2**70), "expected a whole number, below 2^63"),
    "frames as an object": (of("videos", "file_names", to={}), "has `file_names` an object, expected a list"),
    "category name": (of("categories", "name", to=9), "category 9 has `name` 9, which is not text"),
    "no category name": (without("categories", 0, "name"), "category 9 has no `name`"),
    "reference as text": (of("annotations", "video_id", to="7"), "`video_id` '7' (text), which is not among"),
    "crowd as text": (of("annotations", "iscrowd", to="0"), "has `iscrowd` '0' (text), expected 0 or 1"),
    "crowd of 2": (of("annotations", "iscrowd", to=2), "annotation 1 has `iscrowd` 2, expected 0 or 1"),
    "NaN as area": (of("annotations", "areas", 0, to=np.nan), "frame 0, has area nan, expected a number"),
    "infinite area": (of("annotations", "areas", 0, to=np.inf), "frame 0, has area inf, expected a number"),
    "10^400 as area": (of("annotations", "areas", 0, to=HUGE), "has area a number of 401 digits, expected"),
    "area as text": (of("annotations", "areas", 0, to="88"), "has area '88' (text), expected a number"),
    "NaN as box": (
        of("annotations", "bboxes", 0, to=[np.nan] * 4),
        "has box [nan, nan, nan, nan], expected x",
    ),
    "10^400 in a box": (of("annotations", "bboxes", 0, 1, to=HUGE), "has box [6, a number of 401 digits, 11"),
    "box as text": (of("annotations", "bboxes", 0, 1, to="4"), "has box [6, '4', 11, 8], expected x, y"),
    "two masks": (of("annotations", "segmentations", to=[RLE]), "has 1 entries in `segmentations` but its"),
    "NaN as mask": (
        mask(np.nan),
        "frame 0, is not a mask (neither RLE with `size` and `counts` nor polygons but nan)",
    ),
    "two points": (mask([[5, 6, 20, 6]]), "is not a mask (a polygon that is not a list of three or more"),
    "flat polygon": (
        mask([5, 6, 20, 6, 9, 9]),
        "is not a mask (one list of numbers; write a list of polygons",
    ),
    "infinite polygon": (mask([[5, 6, 20, HUGE, 9, 9]]), "is not a mask (a polygon far outside any frame)"),
    "text of bytes": (
        mask(RLE | {"counts": f"b'{RLE['counts']}'"}),
        "counts is Python's text of bytes, b'…'",
    ),
    "no counts": (mask(RLE | {"counts": ""}), "is not a mask (counts is an empty text, not a complete RLE"),
    "larger mask": (
        mask({"size": [16384] * 2, "counts": "0"}),
        "RLE of size [16384, 16384] but its video is",
    ),
    "10^400 as size": (mask({"size": [HUGE, 1], "counts": "0"}), "but its video is [20, 30]"),
    "10^400 as run": (mask({"size": [20, 30], "counts": [HUGE]}), "not a list of integers from 0 to the"),
    "annotations of one image": (
        lambda content: content.update(images=[{}]) or content.pop("videos"),
        "has no list of objects `videos` but `images`, as a file on single images has",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_every_command_refuses_a_file_with_the_same_line(tmp_path, results, name):
    change, words = REFUSED[name]
    path = write(tmp_path, change)
    lines = set()
    for run in (read_vis, lambda path: score_files(path, results), lambda path: validate(results, path)):
        with pytest.raises(UserError) as caught:
            run(path)
        lines.add(str(caught.value))
    (line,) = lines
    assert words in line and "\n" not in line and len(line) < 300 + len(str(path))
    assert line.startswith(f"{path}: ") and line.endswith("; correct the annotations file")
    problem = line.removeprefix(f"{path}: ").removesuffix("; correct the annotations file")
    assert any(problem in examples for _, examples in lint(path).errors.values())


def counted(content):
    content["annotations"][0] |= {"segmentations": [RLE, []], "bboxes": [[6, 4, 11, 8], []]}


READ = {
    "whole floats": lambda content: content["videos"][0].update(height=20.0, width=30.0, length=2.0, id=7.0),
    "size of floats": mask(RLE | {"size": [20.0, 30.0]}),
    "runs of floats": mask({"size": [20, 30], "counts": [124.0, *[8.0, 12.0] * 10, 8.0, 268.0]}),
    "crowd of a boolean": of("annotations", "iscrowd", to=False),
    "crowd of a float": of("annotations", "iscrowd", to=0.0),
    "no crowd": without("annotations", 0, "iscrowd"),
    "null as crowd": of("annotations", "iscrowd", to=None),
    "empty lists": counted,
    "an empty list of boxes": of("annotations", "bboxes", to=[]),
    "no length": without("videos", 0, "length"),
    "backslashes": of("videos", "file_names", to=["v7\\0.jpg", "v7\\1.jpg"]),
    "an empty list of images": lambda content: content.update(images=[]),
    "no id": without("annotations", 0, "id"),
    "CocoVID": lambda content: content.update(cocovid(content)),
    "names with controls": of("categories", "name", to="se\x1b[31mal\ud800"),
}


@pytest.mark.parametrize("name", READ)
def test_every_command_reads_a_file_alike(tmp_path, results, name, capsys):
    path = write(tmp_path, READ[name])
    dataset = read_vis(path)
    (found,) = dataset.objects[7]
    assert (found.annotation_id, found.label, found.iscrowd) == (1, 0, False)
    assert found.segmentations == (RLE, None) and found.boxes == ((6.0, 4.0, 17.0, 12.0), None)
    assert dataset.videos[0].file_names == ("v7/0.jpg", "v7/1.jpg") and candidates(dataset).tolist() == [
        [0, 0]
    ]
    assert dataset.left_out.notes == {}
    assert lint(path).errors == {} and validate(results, path).errors == {}
    labels = read_labels(path)
    assert labels.pixels == [[88, ABSENT]] and labels["annotations"][0]["segmentations"] == [RLE, None]
    assert check_labels(labels, path) is labels


def test_ids_of_videos_may_be_text(tmp_path):
    path = write(tmp_path, of("videos", "id", to="a"), of("annotations", "video_id", to="a"))
    content = json.loads(path.read_text())
    content["videos"][1]["id"] = "b"
    path.write_text(json.dumps(content))
    assert [video.id for video in read_vis(path).videos] == ["a", "b"]
    assert read_vis(path).objects.keys() == {"a"} and lint(path).errors == {}


def test_objects_with_one_id_are_told_apart_by_their_places(tmp_path):
    content = annotations()
    content["annotations"] *= 2
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    assert [found.annotation_id for found in read_vis(path).objects[7]] == [1, 2]
    line = "1 annotations have the `id` of another one, or none; ids are not used"
    assert read_labels(path).notes == [line] and line in lint(path).lines()[1]


def test_videos_without_frames_can_be_scored_but_not_trained_on(tmp_path):
    path = write(tmp_path, without("videos", 0, "file_names"))
    assert read_labels(path)["videos"][0]["length"] == 2
    line = "video 7 has no list of frames `file_names`"
    with pytest.raises(UserError, match=line):
        read_vis(path)
    assert lint(path).errors.keys() == {"videos without frames"} and line in lint(path).lines()[1]


def test_all_faults_are_collected(tmp_path):
    content, found = annotations(), []
    content["annotations"] += [{**content["annotations"][0], "id": 2, "video_id": 8}, 5]
    content["annotations"][0] |= {"segmentations": [[[1, 2]], None], "iscrowd": 3}
    labels = check_labels(content, "a.json", lambda *words: found.append(words[0]))
    assert found == [
        "crowd flags other than 0 and 1",
        "unknown ids",
        "records that are not objects",
        "masks that cannot be read",
    ]
    assert labels.pixels == [[BROKEN, ABSENT]] and labels.originals == content["annotations"][:1]


def test_part_of_a_file():
    content = annotations()
    content["annotations"].append({**content["annotations"][0], "id": 2, "video_id": 3, "category_id": 4})
    part = check_labels(content, "a.json").only({3}, {4, 9})
    assert isinstance(part, LabelsFile) and [video["id"] for video in part["videos"]] == [3]
    assert [record["id"] for record in part["annotations"]] == [2] and part.pixels == [[88, ABSENT]]
    assert [record["id"] for record in part.originals] == [2] and len(part["categories"]) == 2
