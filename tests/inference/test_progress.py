"""Progress on disk: runs killed at any point resume to the bytes of an uninterrupted run.

Faults (full disk, damage, another run) are named in one line and lose no saved frame.
"""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from masktrack_jax.inference import progress
from masktrack_jax.inference.segmenter import Outputs
from masktrack_jax.inference.track_video import track_video
from masktrack_jax.inference.tracks_on_disk import StoredTracks
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.tracking.tracks import TrackOptions
from masktrack_jax.video.files import open_video
from tests.helpers.configs import ROOT
from tests.helpers.moving_objects import moving_objects, segmenter_of
from tests.helpers.track_known import FRAMES
from tests.helpers.track_outputs import results_of


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start tests/helpers/track_known.py as a process."""
    command = [sys.executable, "-m", "tests.helpers.track_known", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, **options)


@pytest.fixture(scope="module")
def uninterrupted(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The results of an uninterrupted run."""
    output = tmp_path_factory.mktemp("uninterrupted") / "out"
    process = start(images, output)
    assert "22 frames, 3 tracks" in process.communicate()[0] and process.returncode == 0
    return results_of(output)


KILLS = [
    # Where it is killed, at which call, and how many frames are saved by then. A batch has 2 frames; every
    # fourth frame and the end are saved.
    [("detector", 1, 0), ("detector", 4, 4), ("line", 3, 4), ("line", 9, 12)],
    [("state", 1, 0), ("state", 3, 8), ("state", 2, 12), ("rename", 3, 16), ("rename", 4, 20)],
    [("line", 22, 20), ("tracks", 2, 22), ("join", 1, 22), ("rename", 3, 22), ("rename", 4, 22)],
    [("rename", 16, 22), ("rename", 5, 22)],  # between the files that move to the output folder
]


@pytest.mark.parametrize("kills", KILLS, ids=lambda kills: "-".join(f"{point}{n}" for point, n, _ in kills))
def test_killed_runs_resume_to_the_same_bytes(
    images: Path, uninterrupted: dict[str, bytes], tmp_path: Path, kills: list[tuple[str, int, int]]
) -> None:
    output = tmp_path / "out"
    for point, nth, safe in kills:
        process = start(images, output, point, nth)
        said = process.communicate()[0]
        assert process.returncode == -signal.SIGKILL, said
        assert len((output / "partial" / "frames.jsonl").read_text().splitlines()) >= safe
        assert not (output / "frames.jsonl").exists(), "looks finished"
        state = output / "partial" / "state.npz"
        assert (json.loads(str(np.load(state)["about"]))["frames"] if state.exists() else 0) == safe
    process = start(images, output)
    said = process.communicate()[0]
    assert process.returncode == 0 and (f"resumes after {safe} frames" in said) == (safe > 0)
    assert results_of(output) == uninterrupted


def test_an_error_keeps_what_was_saved(
    images: Path,
    uninterrupted: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And keeps the results of an earlier run until there are new ones."""
    monkeypatch.setattr(progress, "SAVE_FRAMES", 4)
    output = tmp_path / "out"
    output.mkdir()
    (output / "results.json").write_text("older")
    segmenter = segmenter_of(moving_objects(FRAMES), frames_per_call=2)
    predict = segmenter.predict

    def failing(*arrays: np.ndarray) -> Outputs:
        if len(predict.shapes) == 5:
            raise RuntimeError("device")
        return predict(*arrays)

    segmenter.predict = failing
    with pytest.raises(RuntimeError):
        track_video(segmenter, images, output)
    assert "partial keeps 8 frames; the same command resumes" in capsys.readouterr().out
    assert (output / "results.json").read_text() == "older"
    segmenter.predict = predict
    predict.shapes.clear()
    assert track_video(segmenter, images, output).before == 8
    assert len(predict.shapes) == 7, "the frames that were there are not detected again"
    assert results_of(output) == uninterrupted


def test_results_and_frames_are_the_bytes_of_json(images: Path, uninterrupted: dict[str, bytes]) -> None:
    segmenter = segmenter_of(moving_objects(FRAMES), frames_per_call=2)
    frames = list(open_video(images).frames())
    assert uninterrupted["results.json"].decode() == json.dumps(segmenter.segment(frames))


def test_another_run_is_not_resumed(images: Path, interrupted: Path, tmp_path: Path, clip: Path) -> None:
    segmenter, before = segmenter_of(moving_objects(FRAMES)), sorted((interrupted / "partial").iterdir())
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    for index in range(5):
        (fewer / f"{index}.png").write_bytes((images / f"{index}.png").read_bytes())
    voting = segmenter_of(moving_objects(FRAMES), tracks=TrackOptions("vote"))
    for name, which, path, options in (
        ("input", segmenter, fewer, {}),
        ("checkpoint", segmenter, images, {"network": {"checkpoint": "another"}}),
        ("settings", segmenter, images, {"draw_threshold": 0.5}),
        ("input and settings", voting, clip, {}),
    ):
        message = rf"out/partial: holds 4 frames of a run with other {name}; give another --output, or delete"
        with pytest.raises(UserError, match=message):
            track_video(which, path, interrupted, **options)
    assert sorted((interrupted / "partial").iterdir()) == before
    assert track_video(segmenter, images, interrupted).before == 4


@pytest.mark.parametrize("name", ["state.npz", "detections.jsonl"])
def test_damaged_progress_is_named(images: Path, interrupted: Path, name: str) -> None:
    path = interrupted / "partial" / name
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(
        UserError, match=rf"{name}: (is truncated|cannot be read).*; delete .* to start again"
    ):
        track_video(segmenter_of(moving_objects(FRAMES)), images, interrupted)


def test_two_runs_do_not_write_into_one_folder(images: Path, tmp_path: Path) -> None:
    segmenter, others = segmenter_of(moving_objects(FRAMES)), []
    predict = segmenter.predict

    def meanwhile(*arrays: np.ndarray) -> Outputs:
        if not others:
            others.append(True)
            with pytest.raises(UserError, match=r"out/partial: is in use by process \d+"):
                track_video(segmenter_of(moving_objects(FRAMES)), images, tmp_path / "out")
        return predict(*arrays)

    segmenter.predict = meanwhile
    assert track_video(segmenter, images, tmp_path / "out").frames == FRAMES and others


def test_lines_are_there_as_they_come(images: Path, tmp_path: Path) -> None:
    """Another process reads them while the detector is at work."""
    segmenter, seen = segmenter_of(moving_objects(FRAMES)), []
    predict = segmenter.predict

    def watched(*arrays: np.ndarray) -> Outputs:
        seen.append((tmp_path / "out" / "partial" / "frames.jsonl").read_text())
        return predict(*arrays)

    segmenter.predict = watched
    track_video(segmenter, images, tmp_path / "out")
    whole = (tmp_path / "out" / "frames.jsonl").read_text()
    assert [text.count("\n") for text in seen] == [0, 0, 4, 8, 12, 16]
    assert all(whole.startswith(text) for text in seen)


@pytest.mark.parametrize("name", ["frames.jsonl", "results.json"])
def test_track_video_on_a_full_disk(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, the files of an earlier run stay as they were, and what was saved is not lost."""
    segmenter = segmenter_of(moving_objects(1))
    output = tmp_path / "out"
    track_video(segmenter, clip, output)
    before = results_of(output)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        if name == "frames.jsonl":
            patched.setattr("masktrack_jax.inference.track_video.frame_record", full)
        else:
            patched.setattr(StoredTracks, "write", full)
        message = r"cannot be written (to )?\(No space left on device\)"
        with pytest.raises(UserError, match=message) as caught:
            track_video(segmenter, clip, output)
    assert "\n" not in str(caught.value)
    assert before.items() <= {p.name: p.read_bytes() for p in output.iterdir() if p.is_file()}.items()
    assert (output / "partial").exists() == (name == "results.json")
    assert ("partial keeps 6 frames" in capsys.readouterr().out) == (name == "results.json")
    assert track_video(segmenter, clip, output).before == (6 if name == "results.json" else 0)
    assert results_of(output) == before


def test_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    """Closing a file that cannot be written raises no second error, and nothing is left behind."""
    line = {"frame": 0, "boxes": [[0.0, 0.0, 1.0, 1.0]] * 20}
    result = next(iter(segmenter_of(moving_objects(1)).stream([np.zeros((90, 150, 3), np.uint8)])))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = progress.Progress(tmp_path / "out", {}, TrackOptions(), False)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    try:
        with pytest.raises(UserError, match=r"out: cannot be written to \(File too large\)"), kept:
            for _ in range(100):
                kept.add(result, line)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())
