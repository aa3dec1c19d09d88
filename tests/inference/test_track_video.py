"""`track_video` with a detector that knows the answer: its files, its messages, signals and memory."""

import gc
import json
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from masktrack_jax.inference.segmenter import Outputs, VideoSegmenter
from masktrack_jax.inference.track_video import Summary, track_video
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.tracking.tracks import FrameResult
from masktrack_jax.video.files import FrameFolder, open_video
from tests.helpers.moving_objects import CATEGORIES, RESIZE, moving_objects, segmenter_of
from tests.helpers.track_outputs import NAMES, results_of


def test_track_video_writes_overlay_results_and_frames(tmp_path: Path, clip: Path) -> None:
    segmenter = segmenter_of(moving_objects(1))
    output = tmp_path / "new" / "out"
    summary = track_video(segmenter, clip, output)
    assert (summary.frames, summary.tracks) == (6, 3) and "6 frames, 3 tracks" in str(summary)
    assert sorted(p.name for p in output.iterdir()) == ["frames.jsonl", "overlay.mp4", "results.json"]
    overlay = open_video(output / "overlay.mp4")
    assert (overlay.length, overlay.height, overlay.width) == (6, 450, 750)
    assert next(overlay.frames()).std() > 5, "nothing is drawn"
    tracks = json.loads((output / "results.json").read_text())
    assert tracks == segmenter.segment(open_video(clip).frames())
    assert set(tracks[0]) == {"video_id", "track_id", "category_id", "score", "segmentations"}
    lines = [json.loads(line) for line in (output / "frames.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(6))
    assert lines[5]["track_ids"] == [0, 1, 2] and lines[5]["category_ids"] == [4, 9, 9]
    assert lines[0]["boxes"][0] == pytest.approx([60.3, 20, 99.1, 60], abs=0.011)
    assert lines[0]["scores"] == pytest.approx([0.8, 0.9, 0.7], abs=1e-4)
    track_video(segmenter, clip, output)  # over the files of an earlier run
    assert len(list(output.iterdir())) == 3


def test_the_speed_told_is_that_after_the_first_batch() -> None:
    assert (
        str(Summary(24, 3, 9.0, 4.0, 4))
        == "24 frames, 3 tracks, 9.0 s: 4.0 s to the first frame, then 4.0 frames/s"
    )
    assert str(Summary(4, 3, 9.0, 8.9, 4)) == "4 frames, 3 tracks, 9.0 s"


def test_track_video_leaves_nothing_after_an_error(tmp_path: Path, clip: Path) -> None:
    def failing(images: np.ndarray, sizes: np.ndarray) -> Outputs:
        raise RuntimeError("device")

    segmenter = VideoSegmenter(failing, CATEGORIES, resize=RESIZE)
    with pytest.raises(RuntimeError):
        track_video(segmenter, clip, tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "results.json").write_text("older")
    with pytest.raises(RuntimeError):
        track_video(segmenter, clip, kept)
    assert [p.name for p in kept.iterdir()] == ["results.json"]
    assert (kept / "results.json").read_text() == "older"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_track_video_keeps_what_is_done_at_a_signal(
    tmp_path: Path, clip: Path, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    """The three files in `partial` agree on the frames of the batches so far, and the same call resumes."""
    segmenter = segmenter_of(moving_objects(1))
    stream = segmenter.stream

    def signalled(frames: Iterable[np.ndarray], state: dict[str, np.ndarray] | None) -> Iterator[FrameResult]:
        for result in stream(frames, state):
            if result.index == 2:
                signal.raise_signal(number)
            yield result

    segmenter.stream = signalled
    output = tmp_path / "out"
    with pytest.raises(SystemExit) as stopped:
        track_video(segmenter, clip, output)
    assert stopped.value.code == 128 + number
    said = capsys.readouterr().out
    assert f"{number.name}: {output / 'partial'} holds 4 frames" in said
    assert [p.name for p in output.iterdir()] == ["partial"]
    assert set(NAMES) < {p.name for p in (output / "partial").iterdir()}
    assert len((output / "partial" / "frames.jsonl").read_text().splitlines()) == 4
    assert len(list(open_video(output / "partial" / "overlay.mp4").frames())) == 4
    first = list(open_video(clip).frames())[:4]
    done = json.loads((output / "partial" / "results.json").read_text())
    segmenter.stream = stream
    assert done == segmenter.segment(first)
    summary = track_video(segmenter, clip, output)
    assert (summary.frames, summary.before) == (6, 4) and "6 frames (4 from an earlier run)" in str(summary)
    track_video(segmenter, clip, tmp_path / "whole")
    one, other = results_of(output), results_of(tmp_path / "whole")
    assert one["frames.jsonl"] == other["frames.jsonl"] and one["results.json"] == other["results.json"]
    assert open_video(output / "overlay.mp4").length == 6


def fill_free_lists() -> None:
    """Let CPython keep as many freed tuples of each length as it will: 2,000, which would count as growth."""
    gc.collect()
    for length in range(1, 20):
        list(tuple([index] * length) for index in range(2000))


def test_memory_does_not_grow_with_the_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times as many frames need the same memory; an RLE a frame would add megabytes."""
    truth = moving_objects(4)

    def peak(count: int) -> int:
        segmenter = segmenter_of(truth, frames_per_call=2)
        frames = (np.full((90, 150, 3), index % 4, np.uint8) for index in range(count))
        monkeypatch.setattr(FrameFolder, "frames", lambda self, start: frames)
        fill_free_lists()
        gc.disable()  # a full collection would empty them
        tracemalloc.start()
        try:
            assert track_video(segmenter, folder, tmp_path / str(count)).frames == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            gc.enable()

    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(np.zeros((90, 150, 3), np.uint8)).save(folder / "0.png")
    monkeypatch.setattr("masktrack_jax.inference.track_video.overlay_scale", lambda *_: 1)
    monkeypatch.setattr("masktrack_jax.inference.track_video._draw", lambda frame, *_: frame)
    peak(20)  # imports
    few, many = peak(500), peak(2000)
    assert many - few < 64 * 3 * 1500, "bytes a detection more"


def test_track_video_names_what_it_cannot_read_or_write(tmp_path: Path, clip: Path) -> None:
    segmenter = segmenter_of(moving_objects(1))
    with pytest.raises(UserError, match=r"clip\.mp4/out: output folder cannot be written to"):
        track_video(segmenter, clip, clip / "out")
    with pytest.raises(UserError, match=r"gone\.mp4: no such"):
        track_video(segmenter, tmp_path / "gone.mp4", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize("flag", ["--score-threshold=high", "--score_threshold=high", "--max-detections=0"])
def test_both_spellings_of_the_flags_are_known(flag: str) -> None:
    script = Path(__file__).parents[2] / "track.py"
    arguments = ["--checkpoint=a", "--input=b-c", "--output=d", flag]
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True)
    assert done.returncode != 0
    name = flag[2:].split("=")[0].replace("-", "_")
    assert name in done.stderr + done.stdout and "Unknown" not in done.stderr + done.stdout


def test_the_results_do_not_replace_the_input(tmp_path: Path, clip: Path) -> None:
    segmenter = segmenter_of(moving_objects(1))
    clip.rename(tmp_path / "overlay.mp4")
    before = (tmp_path / "overlay.mp4").read_bytes()
    (tmp_path / "link").symlink_to(tmp_path)
    for output in (tmp_path, tmp_path / "link"):
        with pytest.raises(UserError, match=r"overlay\.mp4: would be replaced by the results; give another"):
            track_video(segmenter, tmp_path / "overlay.mp4", output)
    assert (tmp_path / "overlay.mp4").read_bytes() == before and not (tmp_path / "partial").exists()


def test_an_output_folder_whose_name_is_too_long(tmp_path: Path, clip: Path) -> None:
    with pytest.raises(UserError, match="x: output folder cannot be read") as caught:
        track_video(segmenter_of(moving_objects(1)), clip, tmp_path / ("x" * 300))
    assert "\n" not in str(caught.value)
