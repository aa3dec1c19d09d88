"""The command that converts: its output, and one line for each request that it refuses."""

import shutil

import numpy as np
import pytest

from masktrack_jax.data.convert import __main__ as command
from masktrack_jax.data.convert.convert import convert
from masktrack_jax.data.vis import read_vis
from masktrack_jax.runtime.errors import UserError
from tests.helpers.convert import HEIGHT, WIDTH, write_palette


def test_command(youtube_vos, tmp_path, capsys):
    out = tmp_path / "out"
    command.main(["--from", "youtube-vos", "--input", str(youtube_vos), "--output", str(out), "--link"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "left out: 5 frames without a palette PNG, so not labelled"
    assert printed[1] == "left out: 1 videos with void pixels (255), taken as background"
    assert printed[2].startswith("written: 1 videos, 2 frames, 2 tracks, 3 objects, 2 categories")
    assert printed[-1] == str(out / "instances.json")
    assert (out / "JPEGImages" / "cafe" / "00000.jpg").is_symlink()


def test_bad_requests_are_one_line(youtube_vos, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "list.txt").write_text("cafe\nother\n")
    (tmp_path / "empty").mkdir()
    for arguments, options, match in [
        (("davis", youtube_vos, tmp_path / "full"), {}, "exists; remove it"),
        (("davis", youtube_vos, tmp_path / "out"), {"frames": 2}, "--frames: not for --from davis"),
        (("coco", youtube_vos / "meta.json", tmp_path / "out"), {}, "--images: --from coco needs it"),
        (("davis", youtube_vos, tmp_path / "out"), {"videos": tmp_path / "list.txt"}, "other is not among"),
        (("davis", youtube_vos, tmp_path / "out"), {"videos": tmp_path / "none.txt"}, "cannot be read"),
        (("labelme", tmp_path / "empty", tmp_path / "out"), {}, "nothing to convert"),
        (("mots", tmp_path / "empty", tmp_path / "out"), {}, "check --input"),
        (("cvat", tmp_path / "empty", tmp_path / "out"), {}, "holds no annotations.xml"),
        (("cvat", tmp_path / "none.xml", tmp_path / "out"), {}, "cannot be read"),
    ]:
        with pytest.raises(UserError, match=match) as caught:
            convert(*arguments, **options)
        assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file"]


def test_videos_by_whole_lines_or_words(youtube_vos, tmp_path):
    for folder in ("Annotations", "JPEGImages"):
        (youtube_vos / folder / "cafe").rename(youtube_vos / folder / "my cafe")
    (youtube_vos / "meta.json").unlink()
    (tmp_path / "list.txt").write_text("my cafe\n\n")
    assert convert("davis", youtube_vos, tmp_path / "out", videos=tmp_path / "list.txt").counts.videos == 1


def test_videos_that_are_not_chosen_are_counted(youtube_vos, tmp_path):
    for folder in ("Annotations", "JPEGImages"):
        shutil.copytree(youtube_vos / folder / "cafe", youtube_vos / folder / "bar")
    (youtube_vos / "meta.json").unlink()
    (tmp_path / "list.txt").write_text("bar")
    done = convert("davis", youtube_vos, tmp_path / "out", videos=tmp_path / "list.txt")
    assert done.counts.videos == 1 and done.left_out["videos that list.txt does not name"] == 1


def test_several_inputs_of_different_kinds_of_folders(youtube_vos, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(youtube_vos, other)
    with pytest.raises(UserError, match="two inputs have a video 'cafe'"):
        convert("youtube-vos", [youtube_vos, other], tmp_path / "out")
    for folder in ("Annotations", "JPEGImages"):
        (other / folder / "cafe").rename(other / folder / "bar")
    (other / "meta.json").unlink()
    done = convert("youtube-vos", [youtube_vos, other], tmp_path / "out")
    dataset = read_vis(done.annotations)
    assert [x.name for x in dataset.categories] == ["ape", "object", "zebra"]
    assert [video.name for video in dataset.videos] == ["cafe", "bar"]


def test_a_data_set_without_an_object_is_an_error_that_says_why(youtube_vos, tmp_path):
    for path in (youtube_vos / "Annotations" / "cafe").iterdir():
        write_palette(path, np.zeros((HEIGHT, WIDTH)))
    with pytest.raises(UserError, match=r"no object in any video \(left out: 5 frames without a palette PNG"):
        convert("davis", youtube_vos, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_read_is_one_line(youtube_vos, tmp_path, monkeypatch):
    def closed(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.iterdir", closed)
    with pytest.raises(UserError, match=r"Annotations: cannot be read \(Permission denied\)"):
        convert("davis", youtube_vos, tmp_path / "out")
