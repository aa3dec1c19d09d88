"""Tracking of live sources: frame numbers and times, Ctrl-C, and the same results as from a file."""

import json
import signal
import subprocess
import sys

import av
import numpy as np
import pytest

from masktrack_jax.inference.track_video import track_video
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.lock import NAME
from masktrack_jax.video.files import VideoWriter, open_video
from tests.helpers.cameras import started
from tests.helpers.configs import ROOT
from tests.helpers.moving_objects import KnownDetector, moving_objects, segmenter_of
from tests.helpers.videos import encode


def track_live(tmp_path, monkeypatch, source, drop):
    """Summary, lines and tracks of `track_video` on a live source."""
    monkeypatch.setattr("masktrack_jax.inference.track_video.open_source", lambda *_: source)
    segmenter, output = segmenter_of(moving_objects(16)), tmp_path / "out"
    summary = track_video(segmenter, "0", output, drop_frames=drop)
    assert sorted(path.name for path in output.iterdir()) == ["frames.jsonl", "overlay.mp4", "results.json"]
    lines = [json.loads(line) for line in (output / "frames.jsonl").read_text().splitlines()]
    return summary, lines, json.loads((output / "results.json").read_text())


def numbered_source(monkeypatch, numbers, dropped):
    """A source that yields the frames with these numbers."""
    camera, source = started(drop=True)
    frames = [(number, np.full((90, 150, 3), number, np.uint8)) for number in numbers]
    monkeypatch.setattr(source, "numbered", lambda _: iter(frames))
    source._frames.dropped = dropped
    camera.end()
    return source


def test_frames_keep_the_numbers_and_the_times_of_the_source(tmp_path, monkeypatch):
    """A run that was killed before it saved anything leaves nothing in them."""
    (tmp_path / "out" / "partial").mkdir(parents=True)
    (tmp_path / "out" / "partial" / NAME).touch()
    with VideoWriter(tmp_path / "out" / "partial" / "overlay-000000000.mp4", 10, 450, 750) as writer:
        writer.write(np.zeros((450, 750, 3), np.uint8))
    numbers = [2, 3, 4, 9, 15]
    source = numbered_source(monkeypatch, numbers, 11)
    summary, lines, tracks = track_live(tmp_path, monkeypatch, source, True)
    assert (summary.frames, summary.dropped) == (5, 11) and "5 frames and 11 dropped" in str(summary)
    assert [line["frame"] for line in lines] == numbers
    assert lines[2]["track_ids"] and all(len(track["segmentations"]) == 5 for track in tracks)
    with av.open(str(tmp_path / "out" / "overlay.mp4")) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    assert times == pytest.approx([number / 10 for number in numbers], abs=1e-3), "from the source's start"


@pytest.mark.parametrize("drop", [False, True])
def test_a_live_run_ends_normally_at_ctrl_c(tmp_path, monkeypatch, drop):
    """With the results of the frames so far."""
    camera, source = started(drop)
    detector = KnownDetector.__call__

    def detect(self, images, sizes):
        if len(self.shapes) == 1:  # the source gives no more frames and does not end
            signal.raise_signal(signal.SIGINT)
        camera.give(1 if drop else 4)
        return detector(self, images, sizes)

    camera.give(3)
    monkeypatch.setattr(KnownDetector, "__call__", detect)
    summary, lines, _ = track_live(tmp_path, monkeypatch, source, drop)
    assert summary.frames == len(lines) >= 2


def test_a_live_run_does_not_resume(tmp_path, monkeypatch):
    monkeypatch.setattr("masktrack_jax.inference.progress.SAVE_FRAMES", 4)
    camera, source = started(drop=False)
    camera.give(15)
    camera.end()
    monkeypatch.setattr("masktrack_jax.inference.track_video.open_source", lambda *_: source)
    with pytest.raises(IndexError):
        track_video(segmenter_of(moving_objects(8)), "0", tmp_path / "out")
    camera, source = started(drop=False)
    with pytest.raises(UserError, match=r"out/partial: holds 4 frames of an unfinished run, and a live"):
        track_video(segmenter_of(moving_objects(8)), "0", tmp_path / "out")


def test_standard_input_gives_the_results_of_the_file(tmp_path):
    path = tmp_path / "clip.mkv"
    encode(path, [np.full((90, 150, 3), 8, np.uint8)] * 11, "ffv1", "gray")
    command = [sys.executable, "-m", "tests.helpers.track_known"]
    for name, output in ((path, "file"), ("-", "pipe")):
        with open(path, "rb") as file:
            done = subprocess.run(
                [*command, name, tmp_path / output], stdin=file, env={"PYTHONPATH": str(ROOT)}, text=True,
                capture_output=True, check=False,
            )  # fmt: skip
        assert done.returncode == 0 and "11 frames, 2 tracks" in done.stdout, done.stderr
    for name in ("frames.jsonl", "results.json"):
        assert (tmp_path / "pipe" / name).read_bytes() == (tmp_path / "file" / name).read_bytes()
    assert len(list(open_video(tmp_path / "pipe" / "overlay.mp4").frames())) == 11
