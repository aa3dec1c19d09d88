"""A small data set in the layout of YouTube-VOS."""

import json

import pytest

from tests.helpers.convert import rectangle, write_image, write_palette


@pytest.fixture
def youtube_vos(tmp_path):
    """One video, frames 0 to 6, labelled at 0 and 5; object 1 in both, 2 in the second alone."""
    root = tmp_path / "vos"
    for frame in range(7):
        write_image(root / "JPEGImages" / "cafe" / f"{frame:05d}.jpg", shade=30 * frame)
    first = rectangle(2, 3, 8, 9).astype(int)
    second = 3 * rectangle(4, 3, 10, 9) + 2 * rectangle(15, 10, 25, 18)
    second[0, 0] = 255
    write_palette(root / "Annotations" / "cafe" / "00000.png", 3 * first)
    write_palette(root / "Annotations" / "cafe" / "00005.png", second)
    objects = {"3": {"category": "zebra", "frames": ["00000"]}, "2": {"category": "ape", "frames": ["00005"]}}
    (root / "meta.json").write_text(json.dumps({"videos": {"cafe": {"objects": objects}}}))
    return root
