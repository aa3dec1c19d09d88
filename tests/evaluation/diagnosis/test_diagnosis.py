"""Diagnosis: each kind of error is told from the others, buckets, the page, and the script's flag."""

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as rle_library

from masktrack_jax.evaluation.diagnosis.buckets import hidden_share, make_buckets
from masktrack_jax.evaluation.diagnosis.corrections import (
    CORRECTIONS,
    correct_identities,
    correct_masks,
    lies_on,
)
from masktrack_jax.evaluation.diagnosis.page import make_page
from masktrack_jax.evaluation.diagnosis.report import diagnose, format_diagnosis
from masktrack_jax.evaluation.diagnosis.scenes import NOTHING, read_scenes
from masktrack_jax.evaluation.overlaps import Tracks
from masktrack_jax.evaluation.score import score_files
from masktrack_jax.evaluation.vis_ap import evaluate_vis
from masktrack_jax.runtime.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
CASES = ROOT / "tests" / "cases" / "evaluation"
CAT, DOG = 1, 2
SIZE = (40, 60)


def rectangle(x, y, width=12, height=12, size=SIZE):
    mask = np.zeros(size, np.uint8, order="F")
    mask[y : y + height, x : x + width] = 1
    rle = rle_library.encode(mask)
    return {"size": list(size), "counts": rle["counts"].decode()}


# Two objects of six frames, moving to the right in different rows, and something that is nowhere true.
TOP = [rectangle(2 + 5 * t, 2) for t in range(6)]
BOTTOM = [rectangle(2 + 5 * t, 22) for t in range(6)]
POOR = [rectangle(2 + 5 * t, 8) for t in range(6)]  # half of TOP's rows: IoU 1/3
NOWHERE = [rectangle(46, 4)] * 2 + [None] * 2 + [rectangle(2, 4, 6, 6)] * 2


def track(masks, category_id=CAT, score=0.9, video_id=1):
    return {"video_id": video_id, "category_id": category_id, "score": score, "segmentations": list(masks)}


def ground_truth(*labels):
    """One video with labels of (masks, category)."""
    frames = [f"a/{t}.jpg" for t in range(6)]
    annotations = [
        {"id": i + 1, "video_id": 1, "category_id": category_id, "iscrowd": 0, "segmentations": list(masks)}
        for i, (masks, category_id) in enumerate(labels)
    ]
    return {
        "videos": [{"id": 1, "height": SIZE[0], "width": SIZE[1], "length": 6, "file_names": frames}],
        "categories": [{"id": CAT, "name": "cat"}, {"id": DOG, "name": "dog <small>"}],
        "annotations": annotations,
    }


TWO_CATS = ground_truth((TOP, CAT), (BOTTOM, CAT))
CAT_AND_DOG = ground_truth((TOP, CAT), (BOTTOM, DOG))
PERFECT = [track(TOP, score=0.6), track(BOTTOM, score=0.6)]

# name: (ground truth, results with one kind of error, the correction that alone repairs it)
ONE_ERROR = {
    "two tracks change places": (
        TWO_CATS,
        [track(TOP[:3] + BOTTOM[3:]), track(BOTTOM[:3] + TOP[3:], score=0.8)],
        "identities",
    ),
    "tracks of two classes change places": (
        CAT_AND_DOG,
        [track(TOP[:4] + BOTTOM[4:]), track(BOTTOM[:4] + TOP[4:], DOG, 0.8)],
        "identities",
    ),
    "a track is split": (
        TWO_CATS,
        [track(TOP[:3] + [None] * 3), track([None] * 3 + TOP[3:]), track(BOTTOM, score=0.5)],
        "identities",
    ),
    "one track goes on with another object": (
        ground_truth((TOP[:4] + [None] * 2, CAT), ([None] * 4 + BOTTOM[4:], CAT)),
        [track(TOP[:4] + BOTTOM[4:])],
        "identities",
    ),
    "wrong class": (CAT_AND_DOG, [track(TOP), track(BOTTOM, CAT, 0.95)], "classes"),
    "poor masks": (TWO_CATS, [track(POOR), track(BOTTOM)], "masks"),
    "an object is missed": (TWO_CATS, [track(TOP)], "missed"),
    "frames are missed": (TWO_CATS, [track(TOP), track(BOTTOM[:2] + [None] * 4)], "missed"),
    "a short list": (TWO_CATS, [track(TOP), track([None, *BOTTOM[1:3]])], "missed"),
    "nothing is found": (TWO_CATS, [], "missed"),
    "a false track": (TWO_CATS, [*PERFECT, track(NOWHERE)], "false"),
    "a second track": (TWO_CATS, [*PERFECT, track(POOR)], "false"),
    "false masks in a track": (
        ground_truth((TOP[:4] + [None] * 2, CAT)),
        [track(TOP[:4] + [rectangle(46, 25)] * 2)],
        "false",
    ),
}


@pytest.mark.parametrize("name", ONE_ERROR)
def test_one_error_is_repaired_by_its_correction_alone(name):
    truth, results, kind = ONE_ERROR[name]
    report = diagnose(truth, results).report
    assert report["AP"] < 0.97
    repaired = {key for key, value in report["corrected"].items() if value == pytest.approx(1)}
    assert repaired == {kind, "all"}
    assert report["gains"][kind] == max(report["gains"].values())
    assert report["gains"][kind] == pytest.approx(1 - report["AP"])


def test_perfect_results_gain_nothing():
    report = diagnose(TWO_CATS, PERFECT).report
    assert report["AP"] == pytest.approx(1)
    assert set(report["gains"].values()) == {0.0}
    assert "nothing to gain" in report["summary"]


@pytest.mark.parametrize("case", ["case01", "case02", "case03", "case04"])
def test_recorded_cases_start_at_the_official_ap_and_end_at_one(case):
    truth, results = (json.loads((CASES / f"{case}_{side}.json").read_text()) for side in ("gt", "pred"))
    report, official = diagnose(truth, results).report, evaluate_vis(truth, results)
    assert report["AP"] == official.stats["AP"] and report["AP50"] == official.stats["AP50"]
    assert [row["AP"] for row in report["per_category"].values()] == [
        row["AP"] for row in official.per_category.values()
    ]
    assert report["corrected"]["all"] == pytest.approx(1)
    assert min(report["gains"].values()) > 0, "each case has errors of all kinds"


def scenes_of(truth, results):
    return read_scenes(truth, results)[1]


def test_identities_neither_add_nor_drop_nor_change_a_mask():
    truth, results = (json.loads((CASES / f"case02_{side}.json").read_text()) for side in ("gt", "pred"))
    moved = 0
    for scene in scenes_of(truth, results):
        after = correct_identities(scene)
        for before_frame, after_frame in zip(scene.masks.T, after.masks.T):
            assert sorted(before_frame[before_frame >= 0]) == sorted(after_frame[after_frame >= 0])
        moved += scene.masks.shape != after.masks.shape or (scene.masks != after.masks).any()
    assert moved > 0


def test_a_merged_track_has_the_mean_score_of_its_masks():
    results = [track(TOP[:2] + [None] * 4, score=0.9), track([None] * 2 + TOP[2:], score=0.3)]
    (scene,) = scenes_of(TWO_CATS, results)
    assert correct_identities(scene).scores.tolist() == pytest.approx([(2 * 0.9 + 4 * 0.3) / 6])


def test_identities_leave_a_track_of_the_right_class_whole():
    better_scored = track(BOTTOM[:4] + [None] * 2, CAT, 0.9)
    (scene,) = scenes_of(CAT_AND_DOG, [better_scored, track(BOTTOM, DOG, 0.3)])
    after = correct_identities(scene)
    assert after.masks.tolist() == scene.masks.tolist() and after.scores.tolist() == [0.9, 0.3]


@pytest.mark.parametrize("seen_from, tracks", [(3, 1), (0, 2)])
def test_an_object_that_another_track_goes_on_with_is_missed_only_if_mostly_uncovered(seen_from, tracks):
    # The one track is at home on the first object and lies on the second in frames 4 and 5.
    truth = ground_truth((TOP[:4] + [None] * 2, CAT), ([None] * seen_from + BOTTOM[seen_from:], CAT))
    (scene,) = scenes_of(truth, [track(TOP[:4] + BOTTOM[4:])])
    assert len(CORRECTIONS["missed"](scene).masks) == tracks


def test_filled_frames_beyond_a_short_list_count():
    (scene,) = scenes_of(TWO_CATS, [track(TOP), track(BOTTOM[:3])])
    assert CORRECTIONS["missed"](scene).lengths.tolist() == [6, 6]


def test_masks_keep_mixed_tracks_mixed_and_absent_masks_absent():
    (scene,) = scenes_of(TWO_CATS, [track([*POOR[:2], None, *BOTTOM[3:]])])
    # Row 0 is the prediction; 1 and 2 are the labels.
    assert correct_masks(scene).masks.tolist() == [[1, 1, NOTHING, 2, 2, 2]]


def test_a_mask_lies_on_nothing_below_iou_one_tenth_and_a_track_of_nothing_on_nothing():
    corner = rectangle(12, 12)  # 4 common pixels of 284 with TOP's first mask
    brush = rectangle(22, 10)  # IoU 0.2 with TOP[4]: a mean of 0.067 over three masks, of 0.1 over two
    results = [
        track([corner, *TOP[1:]]),
        track([*NOWHERE[:4], brush, None]),
        track([NOWHERE[0], None, None, None, brush, None]),
    ]
    on, home = lies_on(scenes_of(TWO_CATS, results)[0])
    assert on.tolist() == [[-1, 0, 0, 0, 0, 0], [-1] * 6, [-1, -1, -1, -1, 0, -1]]
    assert home.tolist() == [0, -1, 0]


def test_a_crowd_is_neither_missed_nor_put_together():
    truth = ground_truth((TOP, CAT), (BOTTOM, CAT))
    truth["annotations"][1]["iscrowd"] = 1
    halves = [track(BOTTOM[:3] + [None] * 3), track([None] * 3 + BOTTOM[3:])]
    (scene,) = scenes_of(truth, [track(TOP), *halves])
    assert correct_identities(scene).masks.tolist() == scene.masks.tolist()
    assert CORRECTIONS["false"](scene).masks.tolist() == scene.masks.tolist()
    (scene,) = scenes_of(truth, [track(TOP)])
    assert len(CORRECTIONS["missed"](scene).masks) == 1


def test_unknown_categories_and_empty_tracks_do_not_disturb():
    results = [track(TOP, category_id=77), *PERFECT, track([None] * 6)]
    report = diagnose(TWO_CATS, results).report
    assert report["AP"] == pytest.approx(2 / 3), "one false track before two true ones"
    assert report["corrected"]["false"] == report["corrected"]["all"] == pytest.approx(1)


# Buckets.


def areas_of(*rows):
    areas = np.array(rows)
    lengths = np.full(len(rows), areas.shape[1])
    zeros = np.zeros(len(rows))
    return Tracks(zeros, zeros.astype(bool), zeros, lengths, areas)


def test_hidden_share():
    rows = [
        [-1, 100, 100, 100, -1, -1],  # before and after do not count
        [100, -1, -1, 100, 100, 100],
        [100, 49, 100, 100, 50, -1],  # below half of the median, not at it
        [-1, -1, -1, -1, -1, -1],
    ]
    assert hidden_share(areas_of(*rows)).tolist() == pytest.approx([0, 2 / 6, 1 / 5, 0])


def test_buckets_of_length_occlusion_and_official_size():
    big = (300, 300)

    def seen(frames, side):
        return [rectangle(0, 0, side, side, big) if t in frames else None for t in range(6)]

    # (seen in frames, side): 2 frames small, 4 medium with a gap, 6 large.
    truth = ground_truth((seen((0, 1), 20), CAT), (seen((0, 1, 4, 5), 200), CAT), (seen(range(6), 280), CAT))
    truth["videos"][0] |= {"height": 300, "width": 300}
    results = [track(label["segmentations"], score=0.5) for label in truth["annotations"]]
    del results[1]
    rows = diagnose(truth, results).report["buckets"]
    by_kind = {kind: [row for row in rows if row["kind"] == kind] for kind in ("size", "length", "occlusion")}
    assert [row["name"] for row in by_kind["size"]] == ["small, ≤ 128²", "medium", "large, ≥ 256²"]
    assert [row["name"] for row in by_kind["length"]] == ["2 frames", "3–4 frames", "5–6 frames"]
    assert [row["name"] for row in by_kind["occlusion"]] == ["never hidden", "hidden more"]
    for kind in ("size", "length"):
        assert [row["labels"] for row in by_kind[kind]] == [1, 1, 1]
        assert [row["AP"] for row in by_kind[kind]] == pytest.approx([1, 0, 1])
        assert [row["gains"]["missed"] for row in by_kind[kind]] == pytest.approx([0, 1, 0])
    assert [(row["labels"], row["AP"]) for row in by_kind["occlusion"]] == [(2, pytest.approx(1)), (1, 0)]


def test_sizes_are_relative_where_all_are_small():
    labels = [([rectangle(0, 0, side, side)] * 6, CAT) for side in (4, 6, 8, 10, 12, 14)]
    sizes = [b for b in make_buckets(scenes_of(ground_truth(*labels), [])) if b.kind == "size"]
    assert [bucket.name for bucket in sizes] == ["16–36 pixels", "37–100 pixels", "101–196 pixels"]


def test_most_labels_of_one_length():
    labels = [(TOP, CAT)] * 4 + [(TOP[:2] + [None] * 4, CAT)]
    lengths = [b for b in make_buckets(scenes_of(ground_truth(*labels), [])) if b.kind == "length"]
    assert [bucket.name for bucket in lengths] == ["2–5 frames", "6 frames"]


def test_calibration_counts_what_hits():
    results = [track(TOP, score=0.95), track(BOTTOM, score=0.85), track(NOWHERE, score=0.88)]
    rows = diagnose(TWO_CATS, results).report["calibration"]
    assert [row["tracks"] for row in rows] == [0] * 8 + [2, 1]
    assert rows[8]["right"] == 0.5 and rows[9]["right"] == 1 and rows[0]["right"] is None
    assert rows[8]["mean_score"] == pytest.approx(0.865)
    assert (
        sum(row["tracks"] for row in diagnose(TWO_CATS, [track(TOP, score=1.0)]).report["calibration"]) == 1
    )


# The page.


class Page(HTMLParser):
    """Checks that tags close, and collects attributes and text."""

    VOID = ("meta", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.text, self.tags = [], [], "", []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for key, value in attributes if key in ("src", "href", "xlink:href", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def page_of(truth, results, frames_root=None):
    return make_page(diagnose(truth, results), truth, results, ("gt.json", "results.json"), frames_root)


def write_frames(root):
    from PIL import Image

    (root / "a").mkdir(parents=True)
    for t in range(6):
        Image.new("RGB", SIZE[::-1], (20, 160, 40)).save(root / "a" / f"{t}.jpg")


def test_page_is_self_contained(tmp_path):
    write_frames(tmp_path)
    text = page_of(CAT_AND_DOG, [track(TOP, DOG), track(NOWHERE)], tmp_path)
    page = Page(text)
    assert page.links and all(link.startswith("data:image/") for link in page.links)
    for outside in ("http", "//cdn", "@import", "url(", "<script", "<link"):
        assert outside not in text.replace("data:image/jpeg;base64,", ""), outside
    assert page.tags.count("svg") == 3 and page.tags.count("figure") == 4
    assert "Most would be gained by" in page.text and "not found" not in page.text
    assert "dog <small>" in page.text, "names are escaped"


def test_page_without_images_is_made_and_says_so(tmp_path):
    write_frames(tmp_path)
    for t in range(6):
        (tmp_path / "a" / f"{t}.jpg").unlink()
    results = [track(TOP, DOG)]
    missing = Page(page_of(CAT_AND_DOG, results, tmp_path))
    assert f"were not found below {tmp_path}" in missing.text and "--frames" in missing.text
    assert len(missing.links) == 3
    assert "no folder of frames is known" in Page(page_of(CAT_AND_DOG, results)).text


def test_page_shows_frames_and_masks(tmp_path):
    from base64 import b64decode
    from io import BytesIO

    from PIL import Image

    write_frames(tmp_path)
    page = Page(page_of(ground_truth((TOP, CAT)), [track(POOR, CAT)], tmp_path))
    strip = np.array(Image.open(BytesIO(b64decode(page.links[0].split(",")[1]))), int)
    upper, lower = strip[: len(strip) // 2 - 4], strip[len(strip) // 2 + 4 :]
    green = (abs(strip - [20, 160, 40]) < 12).all(-1)
    assert 0.5 < green.mean() < 0.97, "the frames themselves"
    assert (abs(upper[..., 0] - upper[..., 1]) < 8).any(), "white: the true masks"
    assert (lower[..., 0] > lower[..., 1] + 40).any(), "red: the first track's masks"
    assert not (upper[..., 0] > upper[..., 1] + 40).any()


@pytest.mark.parametrize("results", [[], [track(TOP)], [track([None] * 6)]])
def test_page_of_next_to_nothing(results):
    Page(page_of(TWO_CATS, results))


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
    assert "finding what is missed" in done.stdout
    assert "not found" not in (tmp_path / "diagnosis.html").read_text()
