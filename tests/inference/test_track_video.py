"""track_video with a detector that knows the answer: files, faults, breaks, going on, memory."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from masktrack_jax.inference import resume as record
from masktrack_jax.inference.segmenter import VideoSegmenter
from masktrack_jax.inference.track_video import Summary, track_video
from masktrack_jax.inference.tracks_on_disk import StoredTracks
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.tracking.tracks import TrackOptions
from masktrack_jax.video.files import FrameFolder, VideoWriter, open_video
from tests.helpers.configs import ROOT
from tests.helpers.track_known import FRAMES
from tests.inference.test_segmenter import CATEGORIES, RESIZE, moving_objects, segmenter_of

NAMES = ["frames.jsonl", "overlay.mp4", "results.json"]


@pytest.fixture
def clip(tmp_path):
    """A video whose frames are all the detector's frame 0."""
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, 10, 90, 150) as writer:
        for _ in range(6):
            writer.write(np.zeros((90, 150, 3), np.uint8))
    return path


def test_track_video_writes_overlay_results_and_frames(tmp_path, clip):
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


def test_the_speed_told_is_that_after_the_first_batch():
    assert (
        str(Summary(24, 3, 9.0, 4.0, 4))
        == "24 frames, 3 tracks, 9.0 s: 4.0 s to the first frame, then 4.0 frames/s"
    )
    assert str(Summary(4, 3, 9.0, 8.9, 4)) == "4 frames, 3 tracks, 9.0 s"


def test_track_video_leaves_nothing_after_an_error(tmp_path, clip):
    def failing(images, sizes):
        raise RuntimeError("device")

    segmenter = VideoSegmenter(failing, CATEGORIES, **RESIZE)
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
def test_track_video_keeps_what_is_done_at_a_signal(tmp_path, clip, number, capsys):
    """The three files, in `partial`, agree on the frames of the batches so far, and the same call goes on."""
    segmenter = segmenter_of(moving_objects(1))
    stream = segmenter.stream

    def signalled(frames, state):
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
    assert f"{number.name}: {output / 'partial'} holds what was done, 4 frames" in said
    assert [p.name for p in output.iterdir()] == ["partial"]
    assert set(NAMES) < {p.name for p in (output / "partial").iterdir()}
    assert len((output / "partial" / "frames.jsonl").read_text().splitlines()) == 4
    assert len(list(open_video(output / "partial" / "overlay.mp4").frames())) == 4
    first = list(open_video(clip).frames())[:4]
    done = json.loads((output / "partial" / "results.json").read_text())
    segmenter.stream = stream
    assert done == segmenter.segment(first)
    summary = track_video(segmenter, clip, output)
    assert (summary.frames, summary.before) == (6, 4) and "6 frames (4 from before)" in str(summary)
    track_video(segmenter, clip, tmp_path / "whole")
    one, other = results_of(output), results_of(tmp_path / "whole")
    assert one["frames.jsonl"] == other["frames.jsonl"] and one["results.json"] == other["results.json"]
    assert open_video(output / "overlay.mp4").length == 6


def results_of(output):
    """The bytes of the three files of a finished run."""
    assert sorted(path.name for path in output.iterdir()) == NAMES
    return {path.name: path.read_bytes() for path in output.iterdir()}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of frames, each with its number in every pixel, as the detector wants it."""
    folder = tmp_path_factory.mktemp("images")
    for index in range(FRAMES):
        Image.fromarray(np.full((90, 150, 3), index, np.uint8)).save(folder / f"{index}.png")
    return folder


def start(*arguments, **options):
    """`track_known.py` as a process."""
    command = [sys.executable, "-m", "tests.helpers.track_known", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, **options)


@pytest.fixture(scope="module")
def unbroken(images, tmp_path_factory):
    """The results of a run without a break."""
    output = tmp_path_factory.mktemp("unbroken") / "out"
    process = start(images, output)
    assert "22 frames, 3 tracks" in process.communicate()[0] and process.returncode == 0
    return results_of(output)


KILLS = [
    # What kills, how many frames are safe by then. A batch has 2, saved is every fourth frame and the end.
    [("detector", 1, 0), ("detector", 4, 4), ("line", 3, 4), ("line", 9, 12)],
    [("state", 1, 0), ("state", 3, 8), ("state", 2, 12), ("rename", 3, 16), ("rename", 4, 20)],
    [("line", 22, 20), ("tracks", 2, 22), ("join", 1, 22), ("rename", 3, 22), ("rename", 4, 22)],
    [("rename", 16, 22), ("rename", 5, 22)],  # between the files that move to the output folder
]


@pytest.mark.parametrize("kills", KILLS, ids=lambda kills: "-".join(f"{point}{n}" for point, n, _ in kills))
def test_killed_runs_go_on_to_the_same_bytes(images, unbroken, tmp_path, kills):
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
    assert process.returncode == 0 and (f"goes on after {safe} frames" in said) == (safe > 0)
    assert results_of(output) == unbroken


def test_an_error_keeps_what_was_saved(images, unbroken, tmp_path, monkeypatch, capsys):
    """And results of an earlier run, until there are new ones."""
    monkeypatch.setattr(record, "SAVE_FRAMES", 4)
    output = tmp_path / "out"
    output.mkdir()
    (output / "results.json").write_text("older")
    segmenter = segmenter_of(moving_objects(FRAMES), frames_per_call=2)
    predict = segmenter.predict

    def failing(*arrays):
        if len(predict.shapes) == 5:
            raise RuntimeError("device")
        return predict(*arrays)

    segmenter.predict = failing
    with pytest.raises(RuntimeError):
        track_video(segmenter, images, output)
    assert "partial keeps 8 frames, the same command goes on" in capsys.readouterr().out
    assert (output / "results.json").read_text() == "older"
    segmenter.predict = predict
    predict.shapes.clear()
    assert track_video(segmenter, images, output).before == 8
    assert len(predict.shapes) == 7, "the frames that were there are not detected again"
    assert results_of(output) == unbroken


def test_results_and_frames_are_the_bytes_of_json(images, unbroken):
    segmenter = segmenter_of(moving_objects(FRAMES), frames_per_call=2)
    frames = list(open_video(images).frames())
    assert unbroken["results.json"].decode() == json.dumps(segmenter.segment(frames))


@pytest.fixture
def broken_off(images, tmp_path, monkeypatch):
    """The output folder of a run that was interrupted after 4 frames."""
    monkeypatch.setattr(record, "SAVE_FRAMES", 4)
    segmenter = segmenter_of(moving_objects(8))
    with pytest.raises(IndexError):  # the detector knows no more
        track_video(segmenter, images, tmp_path / "out")
    return tmp_path / "out"


def test_another_run_does_not_go_on(images, broken_off, tmp_path, clip):
    segmenter, before = segmenter_of(moving_objects(FRAMES)), sorted((broken_off / "partial").iterdir())
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
            track_video(which, path, broken_off, **options)
    assert sorted((broken_off / "partial").iterdir()) == before
    assert track_video(segmenter, images, broken_off).before == 4


@pytest.mark.parametrize("name", ["state.npz", "detections.jsonl"])
def test_a_damaged_record_is_named(images, broken_off, name):
    path = broken_off / "partial" / name
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=rf"{name}: (is cut off|cannot be read).*; delete .* to begin anew"):
        track_video(segmenter_of(moving_objects(FRAMES)), images, broken_off)


def test_two_runs_do_not_write_into_one_folder(images, tmp_path):
    segmenter, others = segmenter_of(moving_objects(FRAMES)), []
    predict = segmenter.predict

    def meanwhile(*arrays):
        if not others:
            others.append(True)
            with pytest.raises(UserError, match=r"out/partial: another run is writing"):
                track_video(segmenter_of(moving_objects(FRAMES)), images, tmp_path / "out")
        return predict(*arrays)

    segmenter.predict = meanwhile
    assert track_video(segmenter, images, tmp_path / "out").frames == FRAMES and others


def test_files_of_others_stay(images, tmp_path):
    """A folder that happens to be called `partial`."""
    notes = tmp_path / "out" / "partial" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    track_video(segmenter_of(moving_objects(FRAMES)), images, tmp_path / "out")
    assert notes.read_text() == "mine" and list(notes.parent.iterdir()) == [notes]


def test_lines_are_there_as_they_come(images, tmp_path):
    """What another process reads while the detector is at work."""
    segmenter, seen = segmenter_of(moving_objects(FRAMES)), []
    predict = segmenter.predict

    def watched(*arrays):
        seen.append((tmp_path / "out" / "partial" / "frames.jsonl").read_text())
        return predict(*arrays)

    segmenter.predict = watched
    track_video(segmenter, images, tmp_path / "out")
    whole = (tmp_path / "out" / "frames.jsonl").read_text()
    assert [text.count("\n") for text in seen] == [0, 0, 4, 8, 12, 16]
    assert all(whole.startswith(text) for text in seen)


def test_memory_does_not_grow_with_the_frames(tmp_path, monkeypatch):
    """Four times as many frames: as much memory at its peak, where an RLE a frame would be megabytes more."""
    truth = moving_objects(4)

    def peak(count):
        segmenter = segmenter_of(truth, frames_per_call=2)
        frames = (np.full((90, 150, 3), index % 4, np.uint8) for index in range(count))
        monkeypatch.setattr(FrameFolder, "frames", lambda self, start: frames)
        tracemalloc.start()
        try:
            assert track_video(segmenter, folder, tmp_path / str(count)).frames == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(np.zeros((90, 150, 3), np.uint8)).save(folder / "0.png")
    monkeypatch.setattr("masktrack_jax.inference.track_video.overlay_scale", lambda *_: 1)
    monkeypatch.setattr("masktrack_jax.inference.track_video._draw", lambda frame, *_: frame)
    peak(20)  # imports
    few, many = peak(500), peak(2000)
    assert many - few < 64 * 3 * 1500, "bytes a detection more"


@pytest.mark.parametrize("name", ["frames.jsonl", "results.json"])
def test_track_video_on_a_full_disk(tmp_path, clip, monkeypatch, name, capsys):
    """One line, the files of an earlier run as they were, and what there was by then is not lost."""
    segmenter = segmenter_of(moving_objects(1))
    output = tmp_path / "out"
    track_video(segmenter, clip, output)
    before = results_of(output)

    def full(*_):
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


def test_track_video_names_what_it_cannot_read_or_write(tmp_path, clip):
    segmenter = segmenter_of(moving_objects(1))
    with pytest.raises(UserError, match=r"clip\.mp4/out: output folder cannot be written to"):
        track_video(segmenter, clip, clip / "out")
    with pytest.raises(UserError, match=r"gone\.mp4: no such"):
        track_video(segmenter, tmp_path / "gone.mp4", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize("flag", ["--score-threshold=high", "--score_threshold=high", "--max-detections=0"])
def test_both_spellings_of_the_flags_are_known(flag):
    script = Path(__file__).parents[2] / "track.py"
    arguments = ["--checkpoint=a", "--input=b-c", "--output=d", flag]
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True)
    assert done.returncode != 0
    name = flag[2:].split("=")[0].replace("-", "_")
    assert f"--{name}=" in done.stderr + done.stdout and "Unknown" not in done.stderr + done.stdout


def test_a_disk_that_takes_no_more(tmp_path):
    """What is still to be written when a file is closed is no second error, and nothing is left behind."""
    line = {"frame": 0, "boxes": [[0.0, 0.0, 1.0, 1.0]] * 20}
    result = next(iter(segmenter_of(moving_objects(1)).stream([np.zeros((90, 150, 3), np.uint8)])))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = record.Record(tmp_path / "out", {}, TrackOptions(), False)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    try:
        with pytest.raises(UserError, match=r"out: cannot be written to \(File too large\)"), kept:
            for _ in range(100):
                kept.add(result, line)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())
