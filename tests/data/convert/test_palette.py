"""The converter from DAVIS and YouTube-VOS: masks drawn here are converted exactly and pass the linter."""

import numpy as np
import pytest

from masktrack_jax.data.convert.convert import convert
from masktrack_jax.runtime.errors import UserError
from tests.helpers.convert import (
    HEIGHT,
    WIDTH,
    assert_masks,
    assert_nothing_left,
    converted,
    rectangle,
    write_image,
    write_palette,
)


def test_youtube_vos_keeps_the_labelled_frames(youtube_vos, tmp_path):
    dataset, found, left_out = converted("youtube-vos", youtube_vos, tmp_path / "out")
    assert [(x.id, x.name) for x in dataset.categories] == [(1, "ape"), (2, "zebra")]
    (video,) = dataset.videos
    assert video.file_names == ("cafe/00000.jpg", "cafe/00005.jpg")
    assert_masks(found["cafe"]["zebra"][0], [rectangle(2, 3, 8, 9), rectangle(4, 3, 10, 9)])
    assert_masks(found["cafe"]["ape"][0], [None, rectangle(15, 10, 25, 18)])
    assert left_out == {
        "frames without a palette PNG, so not labelled": 5,
        "videos with void pixels (255), taken as background": 1,
    }
    copied, source = (root / "JPEGImages" / "cafe" / "00005.jpg" for root in (tmp_path / "out", youtube_vos))
    assert copied.read_bytes() == source.read_bytes() and not copied.is_symlink()


def test_davis_has_one_category_and_a_folder_of_its_resolution(tmp_path):
    root = tmp_path / "DAVIS"
    for video in ("bear", "dog10", "dog9"):
        write_image(root / "JPEGImages" / "480p" / video / "00000.jpg")
    write_palette(root / "Annotations/480p/bear/00000.png", 255 * rectangle(1, 1, 9, 9), mode="L")
    write_palette(
        root / "Annotations/480p/dog9/00000.png", rectangle(1, 1, 9, 9) + 2 * rectangle(10, 1, 12, 9)
    )
    write_palette(root / "Annotations/480p/dog10/00000.png", np.zeros((HEIGHT, WIDTH)))
    dataset, found, left_out = converted("davis", root, tmp_path / "out")
    assert [video.name for video in dataset.videos] == ["bear", "dog9", "dog10"]
    assert_masks(found["bear"]["object"][0], [rectangle(1, 1, 9, 9)])  # DAVIS 2016 draws it white
    one, two = found["dog9"]["object"]
    assert_masks(one, [rectangle(1, 1, 9, 9)])
    assert_masks(two, [rectangle(10, 1, 12, 9)])
    assert found["dog10"] == {} and left_out == {}
    (tmp_path / "val.txt").write_text("dog10\nbear\n")
    dataset, _, _ = converted("davis", root, tmp_path / "chosen", videos=tmp_path / "val.txt")
    assert [video.name for video in dataset.videos] == ["bear", "dog10"]


def test_bad_palette_input_is_one_line(youtube_vos, tmp_path):
    png = youtube_vos / "Annotations" / "cafe" / "00005.png"
    whole = png.read_bytes()

    def fails(match):
        with pytest.raises(UserError, match=match) as caught:
            convert("youtube-vos", youtube_vos, tmp_path / "out")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()
        assert_nothing_left(tmp_path)

    write_image(png)
    fails(r"00005\.png: is RGB, not a palette PNG")
    png.write_bytes(whole[:60])
    fails(r"00005\.png: cannot be read as an image")
    write_palette(png, np.ones((HEIGHT, WIDTH - 1)))
    fails(r"00005\.png: is 20x29 \(height x width\) but .*00005\.jpg is 20x30")
    write_palette(png, 7 * rectangle(1, 1, 5, 5))
    fails(r"meta.json: names no category for object 7 of video cafe")
    png.write_bytes(whole)
    frame = youtube_vos / "JPEGImages" / "cafe" / "00005.jpg"
    frame.write_bytes(frame.read_bytes()[:-200])
    fails(r"00005\.jpg: cannot be read as an image")
    write_image(frame, size=(10, 10))
    fails(r"00005\.jpg: is 10x10 .* the frames of a video must have one size")
    frame.unlink()
    fails(r"00005\.png: has no frame")
    (youtube_vos / "meta.json").write_text('{"videos": {"cafe": {"objects": {"1": {}}}}}')
    fails(r"meta\.json: does not state the category")
    png.unlink()
    (youtube_vos / "Annotations" / "cafe" / "00000.png").unlink()
    fails(r"vos: holds no Annotations")
