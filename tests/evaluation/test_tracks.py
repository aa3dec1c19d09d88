"""Tracks of results files: what is refused, what is left out with a count, and how much memory it takes."""

import json
import tracemalloc
import zipfile

import numpy as np
import pytest

from masktrack_jax.evaluation.score import score, score_files
from masktrack_jax.evaluation.validate import validate
from masktrack_jax.runtime.errors import UserError
from tests.helpers.evaluation import one_video, rectangle, track

A, B = rectangle(0, 0, 10, 10), rectangle(20, 5, 10, 10)
TRUTH = one_video([[A, A, A, A], [B, B, B, B]], categories=2)
PERFECT = [track([A] * 4), track([B] * 4)]


@pytest.fixture
def files(tmp_path):
    def write(results, truth=TRUTH):
        paths = tmp_path / "gt.json", tmp_path / "results.json"
        for path, content in zip(paths, (truth, results)):
            path.write_text(json.dumps(content))
        return paths

    return write


@pytest.mark.parametrize(
    "change, line",
    [
        ({"score": ...}, "has no `score`; write a finite number"),
        ({"score": None}, "has `score` null; write a finite number"),
        ({"score": "0.9"}, "has `score` '0.9' (text); write a finite number"),
        ({"score": float("inf")}, "has `score` inf; write a finite number"),
        ({"score": True}, "has `score` true; write a finite number"),
        ({"score": 10**400}, "has `score` a number of 401 digits; write a finite number"),
        ({"category_id": 1.5}, "has `category_id` 1.5, neither a whole number nor text; write the id of a"),
        ({"video_id": "1"}, "has `video_id` '1' (text), not one of 1; write the id of a video"),
        (
            {"segmentations": ..., "segmentation": [A]},
            "has no `segmentations` but `segmentation`; write a list",
        ),
        (
            {"video_id": ..., "image_id": 1},
            "has no `video_id` but `image_id`, as results of single images have",
        ),
        (
            {"segmentations": "b'..'"},
            "has `segmentations` \"b'..'\", not a list; write a list with a mask or null",
        ),
        ({"segmentations": [A | {"counts": f"b'{A['counts']}'"}, B, B, B]}, "decode it before writing"),
        ({"segmentations": [A | {"counts": ""}, B, B, B]}, "counts is an empty text"),
    ],
)
def test_both_commands_refuse_with_the_same_line(files, change, line):
    broken = {key: value for key, value in (PERFECT[1] | change).items() if value is not ...}
    truth, results = files([PERFECT[0], broken])
    with pytest.raises(UserError) as caught:
        score_files(truth, results)
    assert str(caught.value).startswith(f"{results}: track 1 (video ") and line in str(caught.value)
    (found,) = validate(results, truth).errors.values()
    assert f"{results}: {found.examples[0]}" == str(caught.value)


@pytest.mark.parametrize(
    "content, words",
    [
        ({"annotations": PERFECT}, "but an object; write its list `annotations` alone"),
        ({"info": [], "predictions": PERFECT}, "but an object; write its list `predictions` alone"),
        ({"1": PERFECT[:1], "2": PERFECT[1:]}, "but an object; write a list with an object for each track"),
        (PERFECT[0], "but an object; write a list with an object for each track"),
        (7, "but a number; give the results file"),
    ],
)
def test_other_content_is_refused_with_the_same_line(files, content, words):
    truth, results = files(content)
    with pytest.raises(UserError) as caught:
        score_files(truth, results)
    assert str(caught.value) == f"{results}: is not a JSON list of tracks {words}"
    (found,) = validate(results, truth).errors.values()
    assert f"{results}: {found.examples[0]}" == str(caught.value)


def test_one_results_file_of_several_in_a_zip_is_not_picked(files, tmp_path):
    truth, _ = files(PERFECT)
    path = tmp_path / "two.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("results.json", "old/results.json"):
            archive.writestr(name, json.dumps(PERFECT))
    with pytest.raises(UserError, match=r"two\.zip: holds results\.json, old/results\.json; zip one of them"):
        score_files(truth, path)
    assert "zip with several results.json" in validate(path, truth).errors


@pytest.mark.parametrize(
    "change, words",
    [
        ({"segmentations": [A]}, "1 × tracks shorter than their video, first track 2 (video 1) has 1"),
        ({"segmentations": [A]}, "its video 4 frames; AP does not count the last 3 frames"),
        ({"segmentations": [A, A, A, A, A, None]}, "1 × tracks longer than their video, first track 2"),
        ({"segmentations": [A, A, A, A, A, None]}, "AP does not count its last 2 entries"),
        ({"category_id": 0}, "1 × tracks whose `category_id` is not in the annotations, first track 2"),
        (
            {"segmentations": [A, rectangle(0, 0, 9, 9, (40, 41))] * 2},
            "2 × masks whose size is not the video's",
        ),
        ({"segmentations": [None] * 4}, "1 × tracks without a mask in any frame, first track 2 (video 1)"),
        ({}, "1 × tracks written twice, first track 2 (video 1): the same as track 0"),
        (
            {"score": 0.1},
            "1 × tracks with the same masks and another score, first track 2 (video 1): the masks",
        ),
        (
            {"score": 7, "segmentations": [B, A] * 2},
            "1 × scores outside 0 to 1, first track 2 (video 1): score 7",
        ),
    ],
)
def test_flaws_are_notes_with_counts(files, change, words):
    results = [*PERFECT, PERFECT[0] | change]
    notes = score(TRUTH, results, ("gt.json", "results.json"))["notes"]
    assert any(words in note for note in notes), notes
    truth, path = files(results)
    findings = validate(path, truth)
    kind = words.split(" × ")[1].split(", first")[0] if " × " in words else None
    assert kind is None or kind in findings.errors | findings.notes


def test_the_100_best_of_a_category_in_a_video_are_scored(files):
    """Among equal scores the first of the file, as the official evaluator's stable sort keeps them."""
    wrong = [track([rectangle(i % 30, i // 30, 5, 5)] * 4, 0.5) for i in range(99)]
    other = [track([B] * 4, 0.1, category_id=2)]
    results = [track([A] * 4, 0.5), *wrong, track([B] * 4, 0.5), *other]
    metrics = score(TRUTH, results)
    assert metrics["AR100"] == 0.5, "the first of 101 equal scores is kept, the last is not"
    kept = score(TRUTH, results[:100] + other)
    assert {**metrics, "notes": []} == {**kept, "notes": []}
    (note,) = metrics["notes"]
    assert note == (
        "1 × videos with more than 100 tracks of a category, first video 1, category 1: 101 tracks; the 1 "
        "with the lowest scores are left out of all metrics"
    )
    truth, path = files(results)
    assert validate(path, truth).errors == {}
    assert list(validate(path, truth).notes) == ["videos with more than 100 tracks of a category"]


def test_masks_of_tracks_that_are_left_out_are_checked_too(files):
    surplus = [track([A | {"counts": "P"}] * 4, 0.0)]
    for left_out in (surplus, [PERFECT[0] | {"category_id": 5, "segmentations": [7] * 4}]):
        truth, path = files([*PERFECT * 50, *left_out])
        with pytest.raises(UserError, match=r"track 100 \(video 1\), frame 0: not a mask"):
            score_files(truth, path)
        assert "masks that cannot be decoded" in validate(path, truth).errors


def test_memory_does_not_grow_with_tracks_that_are_left_out(files):
    """A table of 2,000 tracks in 36 frames with 20 labels would take 12 MB for each array."""
    masks = [rectangle(x, x, 9, 9) for x in range(30)]
    truth = one_video([[mask] * 36 for mask in masks[:20]])
    score_of = np.random.default_rng(0).random(2000)
    results = [
        track([None] * (n % 30) + [masks[n % 29]] + [None] * (35 - n % 30), score_of[n]) for n in range(2000)
    ]
    score(truth, results[:10])
    tracemalloc.start()
    try:
        score(truth, results)
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "results, words",
    [
        (
            [p | {"category_id": 0} for p in PERFECT],
            "none of its 2 tracks can be scored: track 0 (video 1) has",
        ),
        (
            [p | {"category_id": "1"} for p in PERFECT],
            "`category_id` '1' (text), not one of 1, 2; write the id",
        ),
        ([track([rectangle(0, 0, 9, 9, (41, 40))] * 4)], "no mask has the size of its video, so none counts"),
        ([track([rectangle(0, 0, 9, 9, (30, 50))], 0.5)], "frame 0: size [30, 50], the video has [40, 40]"),
    ],
)
def test_if_everything_falls_out_it_is_an_error(files, results, words):
    truth, path = files(results)
    with pytest.raises(UserError) as caught:
        score_files(truth, path)
    assert words in str(caught.value) and str(path) in str(caught.value)
    assert validate(path, truth).errors


def test_masks_beyond_the_video_do_not_make_others_fall_out():
    turned = rectangle(0, 0, 9, 9, (41, 40))
    metrics = score(TRUTH, [track([A, None, None, None, turned, turned])])
    assert metrics["AP50"] == 0 and "2 × masks whose size is not the video's" in " ".join(metrics["notes"])
    with pytest.raises(UserError, match="no mask has the size of its video"):
        score(TRUTH, [track([None] * 4 + [A]), track([turned])])


def test_whole_floats_are_ids_and_texts_may_be():
    floats = [p | {"video_id": 1.0, "category_id": 1.0} for p in PERFECT]
    assert score(TRUTH, floats) == score(TRUTH, PERFECT)
    named = one_video([[A]])
    named["videos"][0]["id"] = named["annotations"][0]["video_id"] = "v\x1b[1m"
    assert score(named, [track([A], video_id="v\x1b[1m")])["AP"] == pytest.approx(1)
    (note,) = score(named, [])["notes"]
    assert note.isprintable()


def test_only_crowds_give_no_ap_and_a_note():
    crowds = one_video([[A], [B]], iscrowd=1)
    metrics = score(crowds, [track([A])])
    assert metrics["AP"] is None
    assert metrics["notes"] == [
        "no AP: all 2 labelled objects are crowds (`iscrowd` is 1), which it leaves out"
    ]
