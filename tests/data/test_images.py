"""Images of every kind are read, checked, resized and padded, or rejected with one line."""

import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from masktrack_jax.data.images import (
    bucket_for,
    check_image,
    fit_size,
    inspect_image,
    pad_image,
    read_image,
    resize_image,
)
from masktrack_jax.runtime.errors import UserError


def test_images_of_every_mode_become_rgb(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    colour = Image.fromarray(rgb)
    for mode in ("RGB", "RGBA", "P", "L"):
        colour.convert(mode).save(tmp_path / f"{mode}.png")
        np.testing.assert_array_equal(
            read_image(tmp_path / f"{mode}.png"), np.array(colour.convert(mode).convert("RGB"))
        )
    colour.convert("CMYK").save(tmp_path / "cmyk.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "cmyk.tif"), rgb)
    grey = np.array([[0, 257, 65535]], np.uint16)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png")[0, :, 1], [0, 1, 255])


def test_images_of_cameras_and_printers(tmp_path):
    """16 bits a channel, black and white, CMYK JPEG as Adobe writes it (inverted), grey with alpha."""
    rgb = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "deep.png"), rgb[..., ::-1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png"), rgb)
    plain = np.full((16, 16, 3), (200, 40, 90), np.uint8)
    Image.fromarray(plain).convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "print.jpg").astype(int) - plain).max() <= 3
    grey = Image.fromarray(rgb[..., 0])
    Image.merge("LA", (grey, grey)).save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png"), np.repeat(rgb[..., :1], 3, axis=2))
    grey.convert("1").save(tmp_path / "fax.png")
    assert set(np.unique(read_image(tmp_path / "fax.png"))) == {0, 255}
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "depth.tif")
    with pytest.raises(UserError, match=r"depth\.tif: holds floating-point pixels"):
        read_image(tmp_path / "depth.tif")


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (4320, 7680)])
def test_images_of_any_size(tmp_path, size):
    Image.new("RGB", size[::-1], (10, 200, 30)).save(tmp_path / "frame.png")
    image = read_image(tmp_path / "frame.png")
    assert image.shape == (*size, 3) and (image[-1, -1] == (10, 200, 30)).all()
    fitted = fit_size(*size, 640, 360)
    assert resize_image(image, *fitted).shape == (*fitted, 3) and min(fitted) >= 1 and max(fitted) <= 640


def test_a_picture_that_claims_to_be_enormous_is_refused(tmp_path):
    """A header of some bytes for which gigabytes would be taken."""
    Image.new("1", (1, 1)).save(tmp_path / "bomb.png")
    content = bytearray((tmp_path / "bomb.png").read_bytes())
    content[16:24] = struct.pack(">II", 40_000, 40_000)  # of the header, which follows the signature
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(UserError, match=r"bomb\.png: cannot be read as an image"):
        read_image(tmp_path / "bomb.png")


def test_images_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (16, 12)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (16, 12, 3)


def test_bad_image_is_one_line_that_names_it(tmp_path):
    path = tmp_path / "frame.jpg"
    with pytest.raises(UserError, match=r"frame\.jpg: no such image"):
        read_image(path)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:10], b"", b"text"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"frame\.jpg: cannot be read as an image") as caught:
            read_image(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((720, 1280), (360, 640)), ((1280, 720), (640, 360)), ((480, 854), (360, 640)), ((96, 160), (360, 600))],
)
def test_fit_size_is_that_of_the_published_code(size, expected):
    assert fit_size(*size, 640, 360) == expected


def test_resize_is_bilinear_without_antialiasing():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    halved = resize_image(image, 4, 4)
    means = image.reshape(4, 2, 4, 2, 3).mean(
        axis=(1, 3)
    )  # at exactly half the size the two taps are the mean
    assert np.abs(halved - means).max() <= 1
    np.testing.assert_array_equal(resize_image(image, 2, 4)[0, 0], cv2.resize(image, (4, 2))[0, 0])
    assert resize_image(image, 8, 8) is image


def test_bucket_and_padding():
    buckets = [(640, 640), (384, 640), (640, 384)]
    assert bucket_for(360, 640, buckets) == (384, 640)
    assert bucket_for(640, 360, buckets) == (640, 384)
    assert bucket_for(500, 500, buckets) == (640, 640)
    with pytest.raises(UserError, match=r"data\.buckets: .*700x10"):
        bucket_for(700, 10, buckets)
    padded = pad_image(np.ones((3, 4, 3), np.uint8), 5, 6)
    assert padded.shape == (5, 6, 3) and padded.sum() == 36 and padded[:3, :4].all()


@pytest.mark.parametrize("orientation", [None, 3, 6, 8])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_check_image_says_what_read_image_would(tmp_path, suffix, orientation):
    path = tmp_path / f"image.{suffix}"
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 255, (90, 130, 3), np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)
    assert check_image(path) == read_image(path).shape[:2]
    whole = path.read_bytes()
    for cut in (1000, len(whole) // 2, len(whole) - 300):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError, match="cannot be read as an image"):
            check_image(path)


def turned(path, orientation, size=(12, 16)):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size[::-1]).save(path, exif=exif)


def test_a_picture_that_exif_turns_away_from_its_labels_is_named(tmp_path):
    for name in ("turned.jpg", "turned.png"):
        turned(tmp_path / name, 6)
        assert read_image(tmp_path / name, size=(16, 12)).shape == (16, 12, 3)
        with pytest.raises(
            UserError, match=r"is 16x12 \(height x width\) after the quarter turn that its EXIF"
        ):
            read_image(tmp_path / name, size=(12, 16))
    turned(tmp_path / "half.jpg", 3)
    assert inspect_image(tmp_path / "half.jpg") == ((12, 16), 3)
    with pytest.raises(
        UserError, match=r"half\.jpg: is 12x16 \(height x width\) but the annotations say 5x5"
    ):
        read_image(tmp_path / "half.jpg", size=(5, 5))


def test_the_size_is_compared_before_anything_is_decoded(tmp_path, monkeypatch):
    Image.new("RGB", (64, 64)).save(tmp_path / "frame.png")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(UserError, match="is 64x64"):
        read_image(tmp_path / "frame.png", size=(5, 5))
    assert inspect_image(tmp_path / "frame.png", (5, 5)).size == (64, 64)


@pytest.mark.parametrize("suffix", ["gif", "png", "tif", "webp"])
@pytest.mark.parametrize("read", [read_image, check_image])
def test_a_frame_is_one_picture(tmp_path, suffix, read):
    pages = [Image.new("RGB", (16, 12), (90 * n, 0, 0)) for n in range(3)]
    pages[0].save(tmp_path / f"one.{suffix}")
    assert check_image(tmp_path / f"one.{suffix}") == (12, 16)
    pages[0].save(tmp_path / f"frames.{suffix}", save_all=True, append_images=pages[1:])
    with pytest.raises(UserError, match=rf"frames\.{suffix}: holds 3 pictures, expected one; save each"):
        read(tmp_path / f"frames.{suffix}")


def test_a_camera_s_second_view_is_no_page(tmp_path):
    pages = [Image.new("RGB", (16, 12)) for _ in range(2)]
    pages[0].save(tmp_path / "camera.jpg", format="MPO", save_all=True, append_images=pages[1:])
    assert read_image(tmp_path / "camera.jpg").shape == (12, 16, 3)


def test_files_that_are_no_pictures_are_named_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "dangling.jpg").symlink_to("gone.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "phone.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    for name, message in (
        ("pipe.jpg", "is no file but a folder, pipe or device"),
        ("folder.jpg", "is no file but a folder, pipe or device"),
        ("dangling.jpg", r"is a link to gone\.jpg, which does not exist"),
        ("phone.jpg", "is a HEIC picture, which cannot be read; convert it to JPEG"),
        ("a" * 300, "cannot be read as an image"),
        ("half\ud800", "cannot be read as an image"),
    ):
        for read in (read_image, check_image):
            with pytest.raises(UserError, match=message) as caught:
                read(tmp_path / name)
            assert "\n" not in str(caught.value)
