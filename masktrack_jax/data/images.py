"""Read, resize and pad frames, for training and inference. Images are (H, W, 3) RGB."""

import contextlib
import math
import os
import struct
import warnings
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np
from PIL import Image, ImageOps

from masktrack_jax.runtime.errors import UserError

_SIXTEEN_BIT_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_ORIENTATION = 0x0112  # EXIF tag; 5 to 8 are rotated by a quarter turn

# What Pillow raises for damaged files: of some formats any of Python's own errors, such as TypeError.
_UNREADABLE = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError),
    *(RuntimeError, MemoryError, struct.error, Image.DecompressionBombError),
)

# A path or an open file.
ImageSource = str | os.PathLike[str] | IO[bytes]
Size = tuple[int, int]  # height, width


def read_image(path: ImageSource, file: IO[bytes] | None = None) -> np.ndarray:
    """Decode an image file to (H, W, 3) uint8 RGB, rotated by its EXIF orientation.

    `file` is an open file with the image's bytes, if they are not at `path`. Grey, palette, CMYK and RGBA
    (alpha dropped) become RGB; 16-bit grey is scaled to 8 bits. Raises a UserError that names the file if it
    is missing, truncated or not an image.
    """
    with open_image(path, file) as image:
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
    """The (height, width) of the image that `read_image` would return, with the same errors but faster.

    Reads the whole file, so it detects truncation. Decodes JPEG at an eighth of its size.
    """
    with open_image(path) as image:
        width, height = image.size
        if image.mode == "F":
            raise UserError(f"{path}: holds floating-point pixels; convert it to 8-bit RGB")
        turned = bool(image.info.get("exif")) and image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
        image.draft("RGB", (1, 1))
        image.load()
        return (width, height) if turned else (height, width)


@contextlib.contextmanager
def open_image(path: ImageSource, file: IO[bytes] | None = None) -> Iterator[Image.Image]:
    """`Image.open` as a context; errors in it and in the block become a UserError that names the file."""
    try:
        # Warnings are about palettes with transparency, large images, and damage that is an error later.
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(path if file is None else file) as image,
        ):
            yield image
    except FileNotFoundError:
        raise UserError(f"{path}: no such image; check the frames folder") from None
    except _UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be read as an image ({reason}); replace the file") from None


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


def check_frame_size(image: np.ndarray, height: int, width: int, path: ImageSource) -> None:
    """Raise UserError unless an image has the size given in its annotations."""
    if image.shape[:2] != (height, width):
        raise UserError(
            f"{path}: is {image.shape[0]}x{image.shape[1]} (height x width) but the annotations say "
            f"{height}x{width}; correct one of them"
        )
