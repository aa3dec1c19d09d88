"""Folders of pictures: their order, kinds that do not belong together, entries that are no files. Pages."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from masktrack_jax.runtime.errors import UserError
from masktrack_jax.video.files import open_video
from masktrack_jax.video.pictures import natural_orders
from tests.helpers.configs import ROOT


def save(path, value=0, size=(6, 8)):
    """Write a picture of one colour."""
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


@pytest.mark.parametrize(
    "names",
    [
        ("1.jpg", "2.jpg", "10.jpg", "cover.jpg"),
        ("-3.png", "-2.png", "-1.png", "0.png", "1.png", "8.png"),
        ("frame_-010.png", "frame_-001.png", "frame_0000.png", "frame_0010.png"),
        ("frame-1.png", "frame-2.png", "frame-10.png"),  # a dash, no sign
        ("-1.png", "-2.png"),
        ("2024-01-09.png", "2024-01-10.png", "2024-02-01.png"),
        ("a1-2.png", "a1-10.png", "a2-1.png"),
        ("①0.png", "①1.png", "①10.png", "②0.png"),
        ("x²1.png", "x²2.png"),
        ("٢.png", "٣.png", "١٠.png"),
        ("1.5.png", "1.25.png", "2.0.png"),
        ("9" * 200 + ".png", "1" + "0" * 200 + ".png"),
    ],
)
def test_natural_order(names):
    orders = natural_orders(names)
    assert sorted(reversed(names), key=orders.get) == list(names)


@pytest.mark.parametrize(
    "pair",
    [
        ("000.jpg", "000_mask.png"),
        ("000.jpg", "000.png"),
        ("img_000.png", "mask_000.png"),
        ("000_rgb.png", "000_depth.png"),
        ("000.jpg", "000_part_1.png"),
        ("a.jpg", "a.png"),
    ],
)
def test_two_kinds_of_pictures_are_no_video(tmp_path, pair):
    for name in pair:
        save(tmp_path / name)
        save(tmp_path / name.replace("000", "001"))
    with pytest.raises(UserError, match=r"holds two kinds of images, such as .* and .*; keep only") as caught:
        open_video(tmp_path)
    assert all(name in str(caught.value) for name in pair)


def test_frames_with_other_numbers_are_one_kind(tmp_path):
    """Names that change between frames: after the hundredth picture, or with another suffix."""
    for number, name in enumerate(("IMG_1.JPG", "IMG_2.jpeg", "IMG_3.PNG", "cover.png", "IMG_E4.TiFf")):
        save(tmp_path / name, number)
    assert open_video(tmp_path).length == 5


def test_what_is_no_frame_is_counted(tmp_path, caplog):
    save(tmp_path / "0.png")
    for name in ("notes.txt", "list.txt", "IMG_1.HEIC", ".hidden"):
        (tmp_path / name).touch()
    (tmp_path / "masks").mkdir()
    assert open_video(tmp_path).length == 1
    (note,) = caplog.records
    words = "left out what is no frame: 1 without suffix, 1 .heic, 2 .txt"
    assert note.getMessage() == f"{tmp_path}: {words}"


def test_pictures_of_phones_are_named(tmp_path):
    for name in ("IMG_1.HEIC", "IMG_2.heic", "IMG_3.avif"):
        (tmp_path / name).touch()
    words = r"holds no images; 1 \.avif, 2 \.heic cannot be read: convert them to JPEG or PNG"
    with pytest.raises(UserError, match=words):
        open_video(tmp_path)


@pytest.mark.parametrize("kind", ["dangling", "circle", "pipe", "folder", "link to a pipe"])
def test_an_entry_that_is_no_file_is_named(tmp_path, kind):
    folder = tmp_path / "frames"
    folder.mkdir()
    save(folder / "0.png")
    path, elsewhere = folder / "1.png", tmp_path / "pipe"
    os.mkfifo(elsewhere)
    targets = {"dangling": "gone.png", "circle": "1.png", "link to a pipe": elsewhere}
    if kind in targets:
        path.symlink_to(targets[kind])
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    words = {"dangling": "is a link to gone.png, which does not exist", "folder": "is a folder"}
    with pytest.raises(UserError, match=r"1\.png: " + words.get(kind, ".*(named pipe|link)")):
        open_video(folder)


def test_a_picture_that_becomes_a_pipe_is_named(tmp_path):
    """After the folder was opened: reading it would never end."""
    for number in range(3):
        save(tmp_path / f"{number}.png")
    video = open_video(tmp_path)
    (tmp_path / "2.png").unlink()
    os.mkfifo(tmp_path / "2.png")
    frames = video.frames()
    assert len([next(frames), next(frames)]) == 2
    with pytest.raises(UserError, match=r"2\.png: is a named pipe"):
        next(frames)


def test_a_folder_that_cannot_be_read(tmp_path):
    for path in (tmp_path / ("x" * 300), tmp_path / "nul\0l", tmp_path / "/".join(["x" * 200] * 30)):
        with pytest.raises(UserError, match="cannot be opened") as caught:
            open_video(path)
        assert "\n" not in str(caught.value) and "\0" not in str(caught.value)


PAGES = [np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8) for number in range(5)]


@pytest.mark.parametrize("form", ["tiff", "webp", "png", "gif"])
def test_all_pages_of_a_picture_are_frames(tmp_path, form):
    first, *others = map(Image.fromarray, PAGES)
    options = {"lossless": True, "exact": True} if form == "webp" else {}
    path = tmp_path / f"stack.{form}"
    first.save(path, save_all=True, append_images=others, duration=40, **options)
    video = open_video(path)
    frames = list(video.frames())
    assert (video.height, video.width) == (6, 8) and len(frames) == 5
    assert video.fps == (10 if form == "tiff" else 25)
    assert video.length in (5, None)
    if form != "gif":  # which has 256 colours
        assert all(map(np.array_equal, frames, PAGES))
    assert all(map(np.array_equal, video.frames(3), frames[3:]))
    if form in ("tiff", "webp"):
        assert video.fingerprint() == open_video(path).fingerprint()
        folder = tmp_path / "folder"
        folder.mkdir()
        path.rename(folder / path.name)
        with pytest.raises(UserError, match=r"stack\.\w+: holds 5 pictures, expected one"):
            open_video(folder)


def test_previews_are_no_pages(tmp_path):
    """NewSubfileType marks a reduced copy and a mask; a photograph with them is one picture."""
    path = tmp_path / "photo.tif"
    pages = list(map(Image.fromarray, PAGES[:3]))
    pages[1].encoderinfo, pages[2].encoderinfo = {"tiffinfo": {254: 1}}, {"tiffinfo": {254: 4}}
    pages[0].save(path, save_all=True, append_images=pages[1:])
    (frame,) = open_video(path).frames()
    np.testing.assert_array_equal(frame, PAGES[0])
    path.rename(tmp_path / "1.tif")
    save(tmp_path / "0.png")
    assert len(list(open_video(tmp_path).frames())) == 2


READ = """
import sys
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.video.files import open_video
for path in sys.argv[1:]:
    try:
        open_video(path)
    except UserError as error:
        assert str(error).startswith(path), error
"""


def test_a_damaged_picture_gives_one_line_and_no_warning(tmp_path):
    """Pillow warns of damaged tags, and raises errors of many types. (pytest has filters of its own.)"""
    path = tmp_path / "stack.tif"
    first, *others = map(Image.fromarray, PAGES)
    first.save(path, save_all=True, append_images=others)
    content = path.read_bytes()
    tags = content.index(b"\x00\x01\x04\x00")  # the width, in the first page
    paths = [tmp_path / f"{place}.tif" for place in range(tags, tags + 60, 4)]
    for place, damaged in zip(range(tags, tags + 60, 4), paths):
        damaged.write_bytes(content[:place] + b"\xff" + content[place + 1 :])
    command = [sys.executable, "-c", READ, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
