"""Every clip of a folder is tracked once; the next run knows the finished ones, unless something changed."""

import os
from pathlib import Path

import pytest

from masktrack_jax.inference.clips import NAME, Finished, track_clips
from masktrack_jax.inference.progress import RESULTS
from masktrack_jax.runtime.errors import UserError


@pytest.fixture
def clips(tmp_path: Path) -> list[tuple[Path, Path]]:
    """A video and a folder of frames, and their output folders with results."""
    clips = [(tmp_path / "a.mp4", tmp_path / "out" / "a"), (tmp_path / "b", tmp_path / "out" / "b")]
    (tmp_path / "b").mkdir()
    for file in (tmp_path / "a.mp4", tmp_path / "b" / "0.png"):
        file.write_text("pixels")
    (tmp_path / "b" / "old.txt").symlink_to("gone.txt")
    for _, place in clips:
        place.mkdir(parents=True)
        for name in RESULTS:
            (place / name).touch()
    return clips


def test_finished_clips_are_known_to_the_same_run(tmp_path: Path, clips: list[tuple[Path, Path]]) -> None:
    finished = Finished(tmp_path / "out", {"network": 1})
    assert not any(clip in finished for clip in clips)
    finished.add(clips[0])
    again = Finished(tmp_path / "out", {"network": 1})
    assert [clip in again for clip in clips] == [True, False]
    again.add(clips[1])
    assert all(clip in Finished(tmp_path / "out", {"network": 1}) for clip in clips)
    assert not any(clip in Finished(tmp_path / "out", {"network": 2}) for clip in clips)
    again.clear()
    assert not (tmp_path / "out" / NAME).exists()


def test_changed_clips_and_lost_results_are_not_finished(
    tmp_path: Path, clips: list[tuple[Path, Path]]
) -> None:
    finished = Finished(tmp_path / "out", {})
    for clip in clips:
        finished.add(clip)
    os.utime(tmp_path / "b" / "0.png", (1, 1))
    assert [clip in finished for clip in clips] == [True, False]
    (clips[0][1] / "results.json").unlink()
    assert clips[0] not in finished


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"\xff", b"[" * 10**5])
def test_a_damaged_list_is_no_list(tmp_path: Path, clips: list[tuple[Path, Path]], content: bytes) -> None:
    (tmp_path / "out" / NAME).write_bytes(content)
    assert clips[0] not in Finished(tmp_path / "out", {})


def test_each_clip_is_tracked_in_turn(
    tmp_path: Path, clips: list[tuple[Path, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    """A clip that fails does not stop the others, and is the only one that the same command tracks again."""
    bad, tracked = {clips[0][0]}, []

    def track(clip: Path, place: Path) -> None:
        tracked.append((clip, place))
        if clip in bad:
            raise UserError(f"{clip}: damaged")

    arguments = (track, str(tmp_path), str(tmp_path / "out"), {}, 10.0)
    with pytest.raises(UserError, match="1 of 2 clips could not be tracked"):
        track_clips(*arguments)
    assert tracked == clips and capsys.readouterr().err == f"error: {clips[0][0]}: damaged\n"
    bad.clear()
    assert track_clips(*arguments) and tracked[2:] == clips[:1]
    assert "out/b: was finished by an earlier run" in capsys.readouterr().out
    assert track_clips(*arguments) and tracked[3:] == clips, "all were finished: they are computed again"
    assert not track_clips(track, str(tmp_path / "b"), str(tmp_path / "out"), {}, 10.0)


def test_a_link_to_nothing_beside_frames_is_no_obstacle(
    tmp_path: Path, clips: list[tuple[Path, Path]]
) -> None:
    (tmp_path / "b" / ".#0.png").symlink_to("user@machine.1")  # an editor's lock
    finished = Finished(tmp_path / "out", {})
    finished.add(clips[1])
    assert clips[1] in finished


def test_a_pipe_in_place_of_the_list_is_not_waited_for(
    tmp_path: Path, clips: list[tuple[Path, Path]]
) -> None:
    os.mkfifo(tmp_path / "out" / NAME)
    assert clips[0] not in Finished(tmp_path / "out", {})
