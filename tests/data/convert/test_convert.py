"""The command that converts: its output, and one line for each request that it refuses."""

import pytest

from masktrack_jax.data.convert import __main__ as command
from masktrack_jax.data.convert.convert import convert
from masktrack_jax.runtime.errors import UserError


def test_command(youtube_vos, tmp_path, capsys):
    out = tmp_path / "out"
    command.main(["--from", "youtube-vos", "--input", str(youtube_vos), "--output", str(out), "--link"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "left out: 5 frames without a palette PNG, so not labelled"
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
