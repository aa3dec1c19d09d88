"""Random results and labels: read alike by all commands, or rejected with one line."""

import contextlib
import io
import json
import math
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from masktrack_jax.data.json_files import open_results, read_labels
from masktrack_jax.evaluation.faults import Faults
from masktrack_jax.evaluation.score import score, score_files
from masktrack_jax.evaluation.tracks import read_all_masks, read_tracks, video_shapes
from masktrack_jax.evaluation.validate import validate
from masktrack_jax.runtime.errors import UserError, printable
from tests.helpers.annotations import annotations, compressed, object_mask
from tests.helpers.evaluation import rectangle
from tests.helpers.mutations import changed, cut_or_flipped

SIZE = (20, 30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def ground_truth():
    content = annotations()
    content["annotations"][0]["segmentations"] = [compressed(object_mask()), None]
    return content


RESULTS = [
    {"video_id": 7, "category_id": 9, "score": 0.5, "segmentations": [compressed(object_mask()), None]},
    {"video_id": 7, "category_id": 9, "score": 0.25, "segmentations": [None, compressed(object_mask())]},
]


def one_line(run):
    """The result of `run()`, or None if it refuses with one line that names a file."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return run()
    except UserError as error:
        text = str(error)
        assert text == printable(text) and ("truth.json" in text or "results.json" in text), text
        return None


@given(changed({"results": RESULTS, "truth": ground_truth()}))
def test_changed_files(folder, content):
    """Whatever they hold, they are scored, diagnosed and validated, with the same verdict."""
    paths = folder / "truth.json", folder / "results.json"
    for path, value in zip(paths, (content.get("truth"), content.get("results"))):
        path.write_text(json.dumps(value))
    metrics = one_line(lambda: score_files(*paths, folder / "metrics.json", diagnosed=True))
    findings = one_line(lambda: validate(paths[1], paths[0]))
    if metrics is None:
        assert findings is None or findings.num_errors or not content["truth"].get("annotations")
    else:
        assert findings is not None and math.isfinite(metrics["HOTA"])
        assert metrics["notes"] or "nothing to gain" in metrics["diagnosis"]["summary"] or metrics["AP"] != 1


@given(st.data())
def test_changed_zips(folder, data):
    """A damaged zip is read by both commands, or refused by both with the same line."""
    kind = data.draw(st.sampled_from(["zip", "folder in zip"]))
    path = write_file(folder, kind, RESULTS, data.draw(st.sampled_from([0, 8, 12, 14])))
    path.write_bytes(data.draw(cut_or_flipped(path.read_bytes())))
    truth = folder / "truth.json"
    truth.write_text(json.dumps(ground_truth()))
    said = []
    for run in (lambda: score_files(truth, path), lambda: validate(path, truth).lines()):
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                run()
        except UserError as error:
            said.append(str(error))
            assert said[-1] == printable(said[-1]) and str(path) in said[-1]
    assert len(said) != 1 or "track" in said[0], said
    assert len(set(said)) < 2


# Tracks of the two videos of `annotations`, with a rectangle (x, y, width, height) or None in each frame.
BOXES = st.tuples(st.integers(0, 20), st.integers(0, 12), st.integers(1, 9), st.integers(1, 7))
TRACKS = st.tuples(
    st.sampled_from([7, 3]), st.sampled_from([9, 4]), st.floats(0, 1), st.lists(st.none() | BOXES, max_size=3)
)
FORMS = st.sampled_from(["compressed", "runs", "whole floats", "polygon"])


def written(box, form):
    """A rectangle in one of the forms of a segmentation."""
    if box is None:
        return None
    x, y, width, height = box
    mask = np.zeros(SIZE, int)
    mask[y : y + height, x : x + width] = 1
    changes = np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=0)).tolist()
    runs = np.diff([0, *changes, mask.size]).tolist()
    return {
        "compressed": rectangle(x, y, width, height, SIZE),
        "runs": {"size": list(SIZE), "counts": runs},
        "whole floats": {"size": [20.0, 30.0], "counts": list(map(float, runs))},
        "polygon": [[x, y, x + width, y, x + width, y + height, x, y + height]],
    }[form]


def write_file(folder, kind, tracks, method=zipfile.ZIP_DEFLATED):
    """Write results in one of the kinds of files."""
    text = json.dumps(tracks)
    path = folder / ("upload.zip" if "zip" in kind else "results.json")
    if "zip" in kind:
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("results.json" if kind == "zip" else "out/results.json", text)
    else:
        path.write_text(text, encoding=kind)
    return path


def objects(path, labels):
    """The tracks to score in a file, with their masks."""
    shapes, findings = video_shapes(labels), Faults()
    scored, _ = read_tracks(open_results(path).content, shapes, [9, 4], findings)
    found = [(*track[:4], masks.rles) for track, masks in read_all_masks(scored, shapes, findings)]
    return found, findings.lines()


@given(
    st.lists(TRACKS, max_size=6),
    st.lists(TRACKS, min_size=1, max_size=4),
    st.lists(FORMS, min_size=1, max_size=5),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "zip", "folder in zip"]),
    st.sampled_from([int, float]),
)
def test_every_form_gives_the_same_objects(folder, predicted, true, forms, kind, number):
    labels_path = folder / "truth.json"
    truth = annotations()
    truth["annotations"] = [
        {
            "id": i,
            "video_id": video,
            "category_id": category,
            "segmentations": [written(box, forms[i % len(forms)]) for box in [*boxes, None, None][:2]],
        }
        for i, (video, category, _, boxes) in enumerate(true)
    ]
    labels_path.write_text(json.dumps(truth))
    labels = read_labels(labels_path)
    rows = [
        {
            "video_id": number(video),
            "category_id": number(category),
            "score": value,
            "segmentations": [written(box, forms[t % len(forms)]) for t, box in enumerate(boxes)],
        }
        for video, category, value, boxes in predicted
    ]
    usual = [
        {**row, "video_id": int(row["video_id"]), "category_id": int(row["category_id"])}
        | {"segmentations": [written(box, "compressed") for box in boxes]}
        for row, (*_, boxes) in zip(rows, predicted)
    ]
    path = write_file(folder, kind, rows)
    assert objects(path, labels) == objects(write_file(folder, "utf-8", usual), labels)
    expected = score(truth, usual, ("truth", str(path)))
    write_file(folder, kind, rows)
    with contextlib.redirect_stdout(io.StringIO()):
        metrics = score_files(labels_path, path, folder / "metrics.json", diagnosed=len(rows) % 3 == 0)
    diagnosis = metrics.pop("diagnosis", expected)
    assert metrics == expected and diagnosis["AP"] == expected["AP"]
    flaws = ("tracks", "masks that are not", "text that", "zip", "no tracks")
    assert all(kind.startswith(flaws) for kind in validate(path, labels_path).errors)
