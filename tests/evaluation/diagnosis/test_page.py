"""The page is valid HTML without links to anything outside, and its pictures show frames and masks."""

from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from masktrack_jax.evaluation.diagnosis.page import make_page
from masktrack_jax.runtime.errors import UserError
from tests.helpers.diagnosis import (
    CAT,
    CAT_AND_DOG,
    DOG,
    NOWHERE,
    POOR,
    TOP,
    TWO_CATS,
    diagnose,
    ground_truth,
    read,
    track,
    write_frames,
)


class Page(HTMLParser):
    """Checks that tags close, and collects attributes and text."""

    VOID = ("meta", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.text, self.tags = [], [], "", []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for key, value in attributes if key in ("src", "href", "xlink:href", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def page_of(truth, results, frames_root=None):
    names = ("gt.json", "results.json")
    return make_page(diagnose(truth, results), *read(truth, results), names, frames_root)


def test_page_is_self_contained(tmp_path):
    write_frames(tmp_path)
    text = page_of(CAT_AND_DOG, [track(TOP, DOG), track(NOWHERE)], tmp_path)
    page = Page(text)
    assert page.links and all(link.startswith("data:image/") for link in page.links)
    for outside in ("http", "//cdn", "@import", "url(", "<script", "<link"):
        assert outside not in text.replace("data:image/jpeg;base64,", ""), outside
    assert page.tags.count("svg") == 3 and page.tags.count("figure") == 4
    assert "The largest gain would come from" in page.text and "not found" not in page.text
    assert "dog <small>" in page.text, "names are escaped"


def test_page_without_images_has_a_note(tmp_path):
    write_frames(tmp_path)
    for t in range(6):
        (tmp_path / "a" / f"{t}.jpg").unlink()
    results = [track(TOP, DOG)]
    missing = Page(page_of(CAT_AND_DOG, results, tmp_path))
    assert f"were not found below {tmp_path}" in missing.text and "--frames" in missing.text
    assert len(missing.links) == 3
    assert "no folder of frames is known" in Page(page_of(CAT_AND_DOG, results)).text


def test_page_shows_frames_and_masks(tmp_path):
    write_frames(tmp_path)
    page = Page(page_of(ground_truth((TOP, CAT)), [track(POOR, CAT)], tmp_path))
    strip = np.array(Image.open(BytesIO(b64decode(page.links[0].split(",")[1]))), int)
    upper, lower = strip[: len(strip) // 2 - 4], strip[len(strip) // 2 + 4 :]
    green = (abs(strip - [20, 160, 40]) < 12).all(-1)
    assert 0.5 < green.mean() < 0.97, "the frames themselves"
    assert (abs(upper[..., 0] - upper[..., 1]) < 8).any(), "white: the true masks"
    assert (lower[..., 0] > lower[..., 1] + 40).any(), "red: the first track's masks"
    assert not (upper[..., 0] > upper[..., 1] + 40).any()


@pytest.mark.parametrize("results", [[], [track(TOP)], [track([None] * 6)]])
def test_page_without_tracks_or_masks(results):
    Page(page_of(TWO_CATS, results))


def test_names_and_paths_of_files_do_no_harm(tmp_path):
    """Markup and unprintable characters are escaped; no picture comes from outside the frames folder."""
    truth = ground_truth((TOP, CAT))
    truth["categories"][0]["name"] = "<script>\x1b[2J\ud800</script>"
    write_frames(tmp_path)
    (tmp_path / "frames").mkdir()
    names = ["../a/0.jpg", str(tmp_path / "a" / "0.jpg")]
    results = [track(POOR)]
    page = page_of(truth, results, tmp_path / "frames")
    assert "<script" not in page and r"&lt;script&gt;\x1b[2J\ud800&lt;/script&gt;" in page
    assert page.encode() and all(character.isprintable() or character == "\n" for character in page)
    for name in names:
        truth["videos"][0]["file_names"] = [name] * 6
        with pytest.raises(UserError, match="not below the frames folder"):
            page_of(truth, results, tmp_path / "frames")
