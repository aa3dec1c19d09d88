"""Read, resize and pad frames, for training and inference. Images are (H, W, 3) RGB."""

import contextlib
import math
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from masktrack_jax.runtime.errors import UserError

_SIXTEEN_BIT_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_ORIENTATION = 0x0112  # the EXIF tag
_QUARTER_TURNS = (5, 6, 7, 8)
_SUBFILE = 0x00FE  # TIFF tag NewSubfileType: bit 0 marks a preview, bit 2 a mask of another page
_TURNED = " after the quarter turn that its EXIF orientation states"
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")

# Pillow warns of palettes with transparency, large images, and damage that is an error later. The filter is
# for the whole process: `catch_warnings` is not safe in threads, and the loader has some.
warnings.filterwarnings("ignore", module=r"PIL\.")

# A path or an open file.
ImageSource = str | os.PathLike[str] | IO[bytes]
Size = tuple[int, int]  # height, width


class ImageFacts(NamedTuple):
    """What is known of an image before its pixels are decoded."""

    size: Size  # as it is shown, after `orientation`
    orientation: int  # of its EXIF data; 1 is upright, 5 to 8 are rotated by a quarter turn


def read_image(path: ImageSource, file: IO[bytes] | None = None, size: Size | None = None) -> np.ndarray:
    """Decode an image file to (H, W, 3) uint8 RGB, rotated by its EXIF orientation.

    `file` is an open file with the image's bytes, if they are not at `path`. Grey, palette, CMYK and RGBA
    (alpha dropped) become RGB; 16-bit grey is scaled to 8 bits. Raises a UserError that names the file if it
    is missing, truncated, not an image, more than one, or not of `size`, which its annotations state.
    """
    with open_image(path, file) as image:
        facts = _facts(image, path)
        if size is not None:
            _check_size(facts, size, path)
        return as_rgb(image, path)


def as_rgb(image: Image.Image, path: ImageSource) -> np.ndarray:
    """The current page of an open image as (H, W, 3) uint8 RGB, see `read_image`."""
    if image.info.get("exif"):
        image = ImageOps.exif_transpose(image)
    if image.mode in _SIXTEEN_BIT_MODES:
        grey = np.clip(np.asarray(image, np.int64), 0, 65535) * 255 // 65535
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "F":
        raise UserError(f"{path}: holds floating-point pixels; convert it to 8-bit RGB")
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def check_image(path: ImageSource) -> Size:
    """The (height, width) of the image that `read_image` would return, with the same errors but faster."""
    return inspect_image(path).size


def inspect_image(path: ImageSource, size: Size | None = None) -> ImageFacts:
    """The facts of an image that `read_image` would return, with the same errors but faster.

    Reads the whole file, so it detects truncation, unless the image is not of `size`. Decodes JPEG at an
    eighth of its size.
    """
    with open_image(path) as image:
        facts = _facts(image, path)
        if size in (None, facts.size):
            image.draft("RGB", (1, 1))
            image.load()
        return facts


def _facts(image: Image.Image, path: ImageSource) -> ImageFacts:
    """The facts of an open image. Raises a UserError if it cannot be a frame."""
    if image.mode == "F":
        raise UserError(f"{path}: holds floating-point pixels; convert it to 8-bit RGB")
    if len(pages := pages_of(image)) > 1:
        raise UserError(f"{path}: holds {len(pages)} pictures, expected one; save each as a file of its own")
    width, height = image.size
    orientation = image.getexif().get(_ORIENTATION, 1) if image.info.get("exif") else 1
    turned = orientation in _QUARTER_TURNS
    return ImageFacts((width, height) if turned else (height, width), orientation)


def pages_of(image: Image.Image) -> list[int]:
    """The numbers of an open image's pages, without previews and masks of other pages; the first is current.

    A JPEG file has one: further pictures of cameras (MPO) are views and depths of the same moment.
    """
    if image.format == "MPO" or not getattr(image, "is_animated", False):
        return [0]
    pages = []
    for page in range(getattr(image, "n_frames", 1)):
        image.seek(page)
        tags = getattr(image, "tag_v2", {})
        if not int(tags.get(_SUBFILE, 0)) & 0b101:
            pages.append(page)
    image.seek(0)
    return pages or [0]


def _check_size(facts: ImageFacts, stated: Size, path: ImageSource) -> None:
    """Raise UserError unless an image has the size stated in its annotations."""
    if facts.size == stated:
        return
    (height, width), turned = facts.size, facts.orientation in _QUARTER_TURNS
    raise UserError(
        f"{path}: is {height}x{width} (height x width){_TURNED if turned else ''} but the annotations say "
        f"{stated[0]}x{stated[1]}; correct one of them"
    )


@contextlib.contextmanager
def open_image(path: ImageSource, file: IO[bytes] | None = None) -> Iterator[Image.Image]:
    """`Image.open` as a context; errors in it and in the block become a UserError that names the file."""
    try:
        if file is None and isinstance(path, str | os.PathLike) and not stat.S_ISREG(os.stat(path).st_mode):
            raise UserError(f"{path}: is no file but a folder, pipe or device; check the frames folder")
        with Image.open(path if file is None else file) as image:
            yield image
    except FileNotFoundError:
        if isinstance(path, str | os.PathLike) and os.path.islink(path):
            target = os.readlink(path)
            raise UserError(f"{path}: is a link to {target}, which does not exist; replace it") from None
        raise UserError(f"{path}: no such image; check the frames folder") from None
    except UserError:
        raise
    except Exception as error:  # Pillow raises many kinds for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, UnidentifiedImageError) and _is_heic(path if file is None else file):
            raise UserError(f"{path}: is a HEIC picture, which cannot be read; convert it to JPEG") from None
        raise UserError(f"{path}: cannot be read as an image ({reason:.200}); replace the file") from None


def _is_heic(source: ImageSource) -> bool:
    """Whether a file begins as the HEIC pictures of phones do."""
    try:
        if isinstance(source, str | os.PathLike):
            with open(source, "rb") as file:
                start = file.read(12)
        else:
            source.seek(0)
            start = source.read(12)
    except (OSError, ValueError):
        return False
    return start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS


def fit_scale(height: int, width: int, long_edge: int, short_edge: int) -> float:
    """The factor by which `fit_size` resizes, before rounding to whole pixels."""
    return min(long_edge / max(height, width), short_edge / min(height, width))


def fit_size(height: int, width: int, long_edge: int, short_edge: int) -> Size:
    """The size (height, width) that fits an image in `long_edge` × `short_edge` and keeps its proportions.

    Small images grow, as in the published code: s = min(long/max(h, w), short/min(h, w)),
    new = int(x·s + 0.5).
    """
    scale = fit_scale(height, width, long_edge, short_edge)
    return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize of an image to (height, width, 3), not antialiased, as in the published code."""
    import cv2  # slow to load, and not needed by the commands that check or convert data

    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def bucket_for(height: int, width: int, buckets: Sequence[Sequence[int]]) -> Size:
    """The smallest bucket (H, W) that holds an image of this size. Raises UserError if none does."""
    holding = [(bucket[0], bucket[1]) for bucket in buckets if bucket[0] >= height and bucket[1] >= width]
    if not holding:
        known = ", ".join(f"{h}x{w}" for h, w in buckets) or "none"
        raise UserError(
            f"data.buckets: no bucket holds a frame of {height}x{width} (height x width; buckets: {known}); "
            f"add ({32 * math.ceil(height / 32)}, {32 * math.ceil(width / 32)})"
        )
    return min(holding, key=lambda bucket: (bucket[0] * bucket[1], bucket))


def pad_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pad an image (h, w, …) with zeros at the bottom and right to (height, width, …)."""
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    padded = np.zeros((height, width, *image.shape[2:]), image.dtype)
    padded[: image.shape[0], : image.shape[1]] = image
    return padded
