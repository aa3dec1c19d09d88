"""A folder of clips: which are found, in which order, and where their results go."""

import os
from pathlib import Path

import pytest

from masktrack_jax.runtime.errors import UserError
from masktrack_jax.video.clips import places_of_clips


def tree(folder, *paths):
    """Create empty files."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()


def places(folder, output):
    found = places_of_clips(str(folder), str(output)).items()
    return {
        clip.relative_to(folder).as_posix(): place.relative_to(output).as_posix() for clip, place in found
    }


def test_videos_and_folders_of_frames(tmp_path, caplog):
    tree(tmp_path / "in", "b/0.png", "a10.MP4", "a2.mp4", "a2.mkv", "deep/down/1.JPG", "notes.txt", ".x.mp4")
    assert places(tmp_path / "in", tmp_path / "out") == {
        "a2.mkv": "a2.mkv",
        "a2.mp4": "a2.mp4",
        "a10.MP4": "a10",
        "b": "b",
        "deep/down": "deep/down",
    }
    assert [note.getMessage() for note in caplog.records] == [
        f"{tmp_path / 'in'}: left out what is no video: 1 .txt"
    ]


def test_what_is_no_folder_of_clips(tmp_path, caplog):
    tree(tmp_path, "frames/0.png", "frames/more/1.png", "clip.mp4", "empty/.x", "texts/a.txt")
    for name in ("frames", "clip.mp4", "empty", "texts", "rtsp://host", "0", "-", "gone"):
        assert not places_of_clips(str(tmp_path / name), str(tmp_path / "out")), name
    assert not caplog.records, "the one line is that of the folder of frames"


def test_results_of_an_earlier_run_are_no_clips(tmp_path):
    tree(tmp_path, "a.mp4", "out/a/overlay.mp4")
    assert list(places(tmp_path, tmp_path / "out")) == ["a.mp4"]


def test_links_in_a_circle_end(tmp_path):
    tree(tmp_path / "in", "a.mp4", "b/c/0.png")
    os.symlink(tmp_path / "in", tmp_path / "in" / "b" / "again")
    os.symlink("nowhere", tmp_path / "in" / "gone.mp4")
    assert list(places(tmp_path / "in", tmp_path / "out")) == ["a.mp4", "b/c", "gone.mp4"]


def test_pictures_of_phones_are_a_clip_that_will_be_refused(tmp_path):
    tree(tmp_path / "in", "a/1.heic", "b/1.png")
    assert list(places(tmp_path / "in", tmp_path / "out")) == ["a", "b"]


def test_a_name_that_is_too_long(tmp_path):
    with pytest.raises(UserError, match="cannot be opened"):
        places_of_clips(str(Path("x" * 300)), str(tmp_path))


def test_no_two_clips_share_a_place(tmp_path):
    tree(tmp_path, "in/a.mp4", "in/a.mkv", "in/a.mp4.mov", "in/b.mp4")
    found = places_of_clips(str(tmp_path / "in"), str(tmp_path / "out"))
    assert len(set(found.values())) == 4
    assert found[tmp_path / "in" / "a.mp4.mov"] == tmp_path / "out" / "a.mp4.mov"
    assert found[tmp_path / "in" / "b.mp4"] == tmp_path / "out" / "b"


def test_an_output_that_is_a_link_to_itself(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    tree(tmp_path, "in/a.mp4")
    assert len(places_of_clips(str(tmp_path / "in"), str(tmp_path / "loop"))) == 1
