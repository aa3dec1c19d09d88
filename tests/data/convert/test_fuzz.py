"""Random projects are the same objects in every format, and changed files a data set or one line.

A converted set is read by training's reader and the linter, which must find nothing wrong.
"""

import json
import shutil

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from masktrack_jax.data.convert.convert import convert
from masktrack_jax.data.lint.dataset import lint
from masktrack_jax.data.vis import read_vis
from masktrack_jax.masks.rle import decode_mask
from masktrack_jax.runtime.errors import UserError
from tests.helpers import label_formats as formats
from tests.helpers.label_formats import FRAMES, PROJECTS, Thing
from tests.helpers.mutations import changed, cut_or_flipped

PROJECT = [
    Thing("car", ((1, 2, 9, 8), None, (3, 2, 11, 8))),
    Thing("pedestrian", ((12, 4, 20, 15), (12, 5, 20, 16), None)),
    Thing("car", (None, (21, 1, 29, 9), (22, 1, 30, 9))),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def converted(folder, arguments):
    """The converted data set, or None if the input is refused in one line that names a file of it."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    try:
        done = convert(output=out, **arguments)
    except UserError as error:
        text = str(error)
        assert "\n" not in text and len(text) < 800, text
        assert str(folder) in text or "nothing to convert" in text or "cannot be the name" in text, text
        assert not out.exists() and not list(folder.glob(".*"))
        return None
    findings = lint(done.annotations)
    assert findings.num_errors == 0, findings.lines()
    dataset = read_vis(done.annotations)
    assert done.counts.videos == len(dataset.videos) > 0
    assert done.counts.tracks == sum(map(len, dataset.objects.values())) > 0
    return dataset


def found_masks(dataset):
    (video,) = dataset.videos
    found = {}
    for item in dataset.objects_of(video):
        masks = [None if x is None else decode_mask(x).astype(bool) for x in item.segmentations]
        found.setdefault(dataset.categories[item.label].name, []).append(masks)
    return found


def as_text(masks):
    """Objects by category, without their order."""
    return {
        category: sorted(str([None if mask is None else mask.tobytes() for mask in one]) for one in objects)
        for category, objects in masks.items()
    }


WRITERS = [formats.write_coco, formats.write_labelme, formats.write_mots, formats.write_cvat]


@given(write=st.sampled_from(WRITERS), project=PROJECTS)
def test_a_project_is_the_same_objects_in_every_format(folder, write, project):
    dataset = converted(folder, write(folder / write.__name__, project))
    assert dataset is not None and dataset.videos[0].length == FRAMES
    assert as_text(found_masks(dataset)) == as_text(formats.masks(project))


@given(project=PROJECTS)
def test_a_project_is_the_same_objects_in_label_images(folder, project):
    numbers = formats.palette_numbers(project)
    seen = [[frame == number + 1 for frame in numbers] for number in range(len(project))]
    assume(all(np.any(masks) for masks in seen))
    dataset = converted(folder, formats.write_palette_set(folder / "davis", project))
    expected = {}
    for thing, masks in zip(project, seen):
        drawn = [mask if mask.any() else None for mask in masks]
        expected.setdefault(thing.category, []).append(drawn)
    assert as_text(found_masks(dataset)) == as_text(expected)


@given(content=changed(formats.coco_content(PROJECT)))
def test_changed_coco(folder, content):
    arguments = formats.write_coco(folder / "coco", PROJECT)
    arguments["inputs"].write_text(json.dumps(content))
    converted(folder, arguments)


@given(content=changed(formats.labelme_content(PROJECT, 1)))
def test_changed_labelme(folder, content):
    arguments = formats.write_labelme(folder / "labelme", PROJECT)
    (arguments["inputs"] / "00001.json").write_text(json.dumps(content))
    converted(folder, arguments)


WORDS = [
    "",
    "0",
    "-1",
    "3",
    "9" * 30,
    "9" * 5000,
    "1e400",
    "nan",
    "1,1;2,2",
    "0,9",
    "é",
    "../x",
    "outside",
    "mask",
]


@st.composite
def changed_words(draw, text, words):
    """`text` with up to three of these pieces of it replaced."""
    for _ in range(draw(st.integers(1, 3))):
        old = draw(st.sampled_from(words))
        places = [n for n in range(len(text)) if text.startswith(old, n)]
        if places:
            place = draw(st.sampled_from(places))
            text = text[:place] + draw(st.sampled_from(WORDS)) + text[place + len(old) :]
    return text


CVAT = formats.cvat_text(PROJECT)
CVAT_WORDS = [
    "0",
    "1",
    "2",
    "3",
    "9",
    "box",
    "polygon",
    "mask",
    "frame",
    ",",
    ";",
    "car",
    "size",
    'outside="1"',
    "track",
]


@given(content=changed_words(CVAT, CVAT_WORDS).map(str.encode) | cut_or_flipped(CVAT.encode()))
def test_changed_cvat(folder, content):
    arguments = formats.write_cvat(folder / "cvat", PROJECT)
    (arguments["inputs"] / "annotations.xml").write_bytes(content)
    converted(folder, arguments)


MOTS = formats.mots_text(PROJECT)


@given(
    content=changed_words(MOTS, [" ", "1001", "20", "30", "0", "1", "\n"]).map(str.encode)
    | cut_or_flipped(MOTS.encode())
)
def test_changed_mots(folder, content):
    arguments = formats.write_mots(folder / "mots", PROJECT)
    (arguments["inputs"] / "clip.txt").write_bytes(content)
    converted(folder, arguments)


@given(data=st.data())
def test_changed_label_images(folder, data):
    arguments = formats.write_palette_set(folder / "palette", PROJECT)
    png = arguments["inputs"] / "Annotations" / "clip" / "00001.png"
    png.write_bytes(data.draw(cut_or_flipped(png.read_bytes())))
    names = json.loads((arguments["inputs"] / "categories.json").read_text())
    (arguments["inputs"] / "categories.json").write_text(
        json.dumps(data.draw(st.just(names) | changed(names)))
    )
    converted(folder, arguments)
