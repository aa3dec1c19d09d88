"""Label images: those with object numbers are read, pictures and smoothed masks are refused in one line."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from masktrack_jax.data.convert.convert import convert
from masktrack_jax.data.convert.label_images import read_label_image
from masktrack_jax.runtime.errors import UserError
from tests.helpers.convert import (
    HEIGHT,
    WIDTH,
    assert_masks,
    converted,
    rectangle,
    write_image,
    write_palette,
)

SHAPE = (240, 320)


def disc(value, x=80, y=60, radius=40, on=None):
    """A frame with a disc, over other objects if given."""
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    inside = (rows - 2 * y) ** 2 + (columns - 2 * x) ** 2 <= 4 * radius**2
    return np.where(inside, value, 0 if on is None else on).astype(np.uint8)


SEVERAL = disc(4, 120, 40, 15, disc(3, 100, 80, 30, disc(2, 50, 60, 25, disc(1, 40, 40, 30))))


def resized(numbers, factor, method):
    size = int(numbers.shape[1] * factor), int(numbers.shape[0] * factor)
    return np.array(Image.fromarray(numbers).resize(size, method))


def jpeg(numbers, quality):
    stream = io.BytesIO()
    Image.fromarray(numbers).save(stream, "jpeg", quality=quality)
    return np.array(Image.open(stream))


def save(folder, numbers, mode="L"):
    image = Image.fromarray(numbers) if isinstance(numbers, np.ndarray) else numbers
    path, frame = folder / "00000.png", folder / "frame.jpg"
    image = image if mode in (image.mode, None) else image.convert(mode)
    image.save(path)
    return path, frame, (image.height, image.width)


THIN = np.kron(np.arange(20, dtype=np.uint8).reshape(4, 5), np.ones((30, 2), np.uint8))  # 2 pixels wide
RING = disc(1, radius=38, on=disc(255))  # a border of void around an object


@pytest.mark.parametrize(
    "numbers",
    [
        SEVERAL,
        resized(SEVERAL, 0.5, Image.Resampling.NEAREST),
        disc(255),
        RING,
        disc(255, 120, 30, 20, SEVERAL),
        np.arange(100, dtype=np.uint8).reshape(10, 10).repeat(8, 0).repeat(8, 1),
        np.zeros(SHAPE, np.uint8),
        THIN[:, :4],
        np.eye(60, dtype=np.uint8) * 3,  # an object one pixel wide
        np.uint8(2) * rectangle(5, 5, 20, 15)
        - rectangle(6, 6, 19, 14),  # a border one pixel wide around another
    ],
)
def test_object_numbers_are_read(tmp_path, numbers):
    np.testing.assert_array_equal(read_label_image(*save(tmp_path, numbers)).numbers, numbers)


def grey_png(numbers, bits):
    """A PNG with grey values of 1, 2, 4 or 8 bits, which PIL cannot write."""
    height, width = numbers.shape
    digits = ((numbers[..., None] >> np.arange(bits)[::-1]) & 1).reshape(height, -1).astype(np.uint8)
    rows = np.pad(np.packbits(digits, axis=1), ((0, 0), (1, 0)))  # each row starts with the filter 0
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_values_of_few_bits_are_the_numbers(tmp_path, bits):
    """PIL stretches them to 0…255, where the highest would be void."""
    numbers = np.arange(min(2**bits, 100)).astype(np.uint8).repeat(8)[None].repeat(8, 0)
    path = tmp_path / "00000.png"
    path.write_bytes(grey_png(numbers, bits))
    np.testing.assert_array_equal(read_label_image(path, path, numbers.shape).numbers, numbers)


@pytest.mark.parametrize(
    "numbers, match",
    [
        (jpeg(disc(255), 50), "more than a frame has objects|JPEG-compressed"),
        (jpeg(disc(255), 95), "JPEG-compressed"),
        (jpeg(disc(255), 100), "single specks, so it was JPEG-compressed"),
        (resized(disc(255), 0.5, Image.Resampling.BILINEAR), "smoothed, resized"),
        (resized(disc(2), 1.5, Image.Resampling.BILINEAR), "smoothed, resized"),
        (resized(SEVERAL, 0.5, Image.Resampling.BILINEAR), "smoothed, resized"),
        (resized(SEVERAL, 2, Image.Resampling.BICUBIC), "smoothed, resized"),
        (
            np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8),
            "has 255 values besides 0.* it is a picture",
        ),
        (np.random.default_rng(0).integers(0, 9, SHAPE, np.uint8), "smoothed, resized"),
    ],
)
def test_pictures_and_smoothed_masks_are_refused(tmp_path, numbers, match):
    with pytest.raises(UserError, match=match) as caught:
        read_label_image(*save(tmp_path, numbers))
    assert "00000.png: " in str(caught.value) and "resize them with nearest" in str(caught.value)


def test_pages_behind_the_first_are_not_passed_over(tmp_path):
    path, frame, size = save(tmp_path, disc(1))
    Image.fromarray(disc(1)).save(path, save_all=True, append_images=[Image.fromarray(disc(1, 99))])
    with pytest.raises(UserError, match=r"00000\.png: holds 2 pictures, expected one"):
        read_label_image(path, frame, size)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "I;16"])
def test_images_of_another_form_are_refused(tmp_path, mode):
    numbers = disc(1).astype(np.uint16) if mode == "I;16" else disc(1)
    with pytest.raises(UserError, match=f"is {mode}, not a palette PNG"):
        read_label_image(*save(tmp_path, numbers, None if mode == "I;16" else mode))


def data_set(root, numbers, suffix=".png"):
    write_image(root / "JPEGImages" / "clip" / "00000.jpg")
    path = root / "Annotations" / "clip" / f"00000{suffix}"
    write_palette(path, numbers)
    return root


def test_extensions_in_any_case(tmp_path):
    root = data_set(tmp_path / "set", 3 * rectangle(2, 2, 9, 9), ".PNG")
    _, found, _ = converted("davis", root, tmp_path / "out")
    assert_masks(found["clip"]["object"][0], [rectangle(2, 2, 9, 9)])


TWO = rectangle(2, 2, 9, 9) + 2 * rectangle(12, 2, 19, 9)


@pytest.mark.parametrize(
    "categories, expected",
    [
        ("polyp", {"polyp": 2}),
        ('{"1": "cow", "2": "calf"}', {"cow": 1, "calf": 1}),
        ('{"clip": {"1": "cow", "2": "cow"}}', {"cow": 2}),
        (
            '{"videos": {"clip": {"objects": {"1": {"category": "a"}, "2": {"category": "b"}}}}}',
            {"a": 1, "b": 1},
        ),
    ],
)
def test_categories_by_name_or_by_file(tmp_path, categories, expected):
    root, given = data_set(tmp_path / "set", TWO), categories
    if categories.startswith("{"):
        given = str(tmp_path / "map.JSON")
        (tmp_path / "map.JSON").write_text(categories)
    _, found, _ = converted("davis", root, tmp_path / "out", categories=given)
    assert {name: len(objects) for name, objects in found["clip"].items()} == expected


@pytest.mark.parametrize(
    "text, match",
    [
        ('{"1": "cow"}', "map.json: names no category for object 2 of video clip"),
        ('{"1": 7}', "map.json: does not state the category"),
        ('{"1": " ", "2": "b"}', "map.json: does not state the category"),
        ("[]", "map.json: is not a JSON object but a list"),
        (None, "map.json: cannot be read"),
    ],
)
def test_bad_maps_of_categories_are_one_line(tmp_path, text, match):
    root = data_set(tmp_path / "set", TWO)
    if text is not None:
        (tmp_path / "map.json").write_text(text)
    with pytest.raises(UserError, match=match):
        convert("davis", root, tmp_path / "out", categories=str(tmp_path / "map.json"))
    with pytest.raises(UserError, match="--categories: is empty"):
        convert("davis", root, tmp_path / "out", categories=" ")


def test_what_is_left_out_or_tiny_is_counted(tmp_path):
    root = data_set(tmp_path / "set", TWO + 5 * rectangle(20, 12, 22, 13))
    write_image(root / "JPEGImages" / "test" / "00000.jpg")
    (root / "Annotations" / "empty").mkdir()
    done = convert("davis", root, tmp_path / "out")
    assert done.left_out == {"videos without a palette PNG": 1, "videos without a folder of palette PNGs": 1}
    assert done.notes == {"objects of 4 pixels or fewer in every frame": 1}


def test_palettes_that_differ_are_noted(tmp_path):
    """Programs that save few colours number them anew in each image."""
    root = data_set(tmp_path / "set", TWO)
    write_image(root / "JPEGImages" / "clip" / "00001.jpg")
    path = root / "Annotations" / "clip" / "00001.png"
    write_palette(path, TWO)
    assert not convert("davis", root, tmp_path / "out").notes
    with Image.open(path) as image:
        image.putpalette(image.getpalette()[3:6] + image.getpalette()[:3] + image.getpalette()[6:])
        image.save(path)
    notes = convert("davis", root, tmp_path / "again").notes
    assert notes == {"videos whose PNGs have different palettes; a number in them may be two objects": 1}


def test_frames_and_masks_of_one_name_are_refused(tmp_path):
    root = data_set(tmp_path / "set", TWO)
    write_image(root / "JPEGImages" / "clip" / "00000.png")
    with pytest.raises(UserError, match=r"00000\.png: has the same name as 00000\.jpg"):
        convert("davis", root, tmp_path / "out")


def test_a_size_is_compared_before_the_pixels_are_read(tmp_path):
    path, frame, _ = save(tmp_path, np.zeros((HEIGHT, WIDTH), np.uint8))
    content = bytearray(path.read_bytes())
    content[16:24] = (30_000).to_bytes(4, "big") * 2  # the header states 900 million pixels
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"00000\.png"):
        read_label_image(path, frame, (HEIGHT, WIDTH))
