"""Files that were changed at random: each is read, or refused in one line that names it, in little memory.

The suite tries a few of each kind; `pytest tests/test_fuzz.py --hypothesis-profile=long` tries thousands.
"""

import copy
import io
import json
import struct

import numpy as np
import pytest
from hypothesis import example, given, target
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from masktrack_jax.checkpoints.metadata import Metadata, read_metadata
from masktrack_jax.config.base import base_config
from masktrack_jax.data.images import read_image
from masktrack_jax.data.lint.dataset import lint
from masktrack_jax.data.vis import read_vis
from masktrack_jax.evaluation.diagnosis.report import diagnose
from masktrack_jax.evaluation.results import read_json
from masktrack_jax.evaluation.score import score
from masktrack_jax.evaluation.validate import validate
from masktrack_jax.interop import files as weights
from masktrack_jax.masks.segmentations import compact_segmentation, decode_segmentation
from masktrack_jax.models.masktrack_rcnn import build_model
from masktrack_jax.runtime.errors import UserError
from tests.data.test_vis import _compressed, _content, _mask, _uncompressed

# What a JSON file may hold in the place of something else; the numbers and texts are those that hurt.
NUMBERS = st.sampled_from([0, -1, 1, 2**31, 2**63, 10**6, 10**12, 1e300, 0.5, float("nan"), float("inf")])
TEXTS = st.sampled_from(["", "/etc/hosts", "../x", "a/../../x", "\0", "\ud800", "é", "PPPPPPPP0", "1" * 40])
LEAVES = st.none() | st.booleans() | NUMBERS | TEXTS | st.integers(-3, 40) | st.text(max_size=6)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def places(value, path=()):
    """The path of every entry of a JSON value."""
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in entries:
        yield (*path, key)
        yield from places(inner, (*path, key))


@st.composite
def changed(draw, content):
    """`content` with up to three of its entries removed, doubled, or replaced."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        known = list(places(content))
        if not known:
            break
        *path, key = draw(st.sampled_from(known))
        parent = content
        for step in path:
            parent = parent[step]
        kind = draw(st.sampled_from(["replace", "replace", "remove", "double", "swap"]))
        if kind == "replace":
            parent[key] = draw(VALUES)
        elif kind == "remove":
            del parent[key]
        elif kind == "double" and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        else:
            *path, other = draw(st.sampled_from(known))
            value = content
            for step in (*path, other):
                value = value[step]
            parent[key] = copy.deepcopy(value)
    return content


def cut_or_flipped(whole):
    """The bytes `whole` with a few of them changed, or cut off."""
    flips = st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=6)

    def change(arguments):
        places, end = arguments
        data = bytearray(whole)
        for place, value in places:
            data[place] = value
        return bytes(data[:end])

    return st.tuples(flips, st.integers(0, len(whole)) | st.just(len(whole))).map(change)


def refused_or(read, path):
    """What `read(path)` gives, or None where it refuses the file in one line that names it."""
    try:
        return read(path)
    except UserError as error:
        text = str(error)
        assert "\n" not in text and str(path) in text, text
        assert len(text) < 600 + len(str(path)), text
        return None


def polygons(content):
    content = copy.deepcopy(content)
    content["annotations"][0]["segmentations"][0] = [[6, 4, 17, 4, 17, 12, 6, 12]]
    return content


def cocovid(content):
    """The same annotations, a record a frame and a box, as mmtracking has them."""
    images = [
        {"id": 10 * video["id"] + frame, "video_id": video["id"], "frame_id": frame, "file_name": name}
        | {key: video[key] for key in ("height", "width")}
        for video in content["videos"]
        for frame, name in enumerate(video["file_names"])
    ]
    box = {"id": 1, "image_id": 70, "instance_id": 5, "category_id": 9, "bbox": [6, 4, 11, 8], "area": 88}
    box |= {"segmentation": _uncompressed(_mask()), "iscrowd": 0}
    videos = [{"id": video["id"], "name": "v"} for video in content["videos"]]
    return {"categories": content["categories"], "videos": videos, "images": images, "annotations": [box]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


ANNOTATIONS = [_content(), polygons(_content()), cocovid(_content())]


@given(st.sampled_from(ANNOTATIONS).flatmap(changed))
def test_annotations(folder, content):
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    dataset = refused_or(read_vis, path)
    if dataset is None:
        return
    target(float(len(dataset.videos)))
    for video in dataset.videos:
        assert video.height * video.width <= 2**28
        for frame in range(video.length):
            inside = dataset.frame_path(video, frame).resolve()
            assert inside.is_relative_to(dataset.frames_root.resolve())
            with pytest.raises(UserError, match="no such image"):
                dataset.read_frame(video, frame)
        for found in dataset.objects_of(video):
            for segmentation, box in zip(found.segmentations, found.boxes, strict=True):
                assert (segmentation is None) == (box is None)
                if segmentation is not None and video.height * video.width < 10**6:
                    mask = decode_segmentation(segmentation, video.height, video.width)
                    assert mask.shape == (video.height, video.width)


@given(st.sampled_from(ANNOTATIONS).flatmap(changed))
def test_the_linter(folder, content):
    path = folder / "linted.json"
    path.write_text(json.dumps(content))
    refused_or(lint, path)


@given(cut_or_flipped(json.dumps(_content()).encode()))
@example(b"[" * 100_000)
@example(b'{"videos": ' + b"1" * 10_000 + b"}")
def test_json_text(folder, content):
    path = folder / "text.json"
    path.write_bytes(content)
    for read in (read_vis, read_json):
        refused_or(read, path)


def ground_truth():
    content = _content()
    content["annotations"][0]["segmentations"] = [_compressed(_mask()), None]
    return content


RESULTS = [
    {"video_id": 7, "category_id": 9, "score": 0.5, "segmentations": [_compressed(_mask()), None]},
    {"video_id": 7, "category_id": 9, "score": 0.25, "segmentations": [None, _compressed(_mask())]},
]


@given(changed({"results": RESULTS, "truth": ground_truth()}))
def test_results(folder, content):
    """Scored, diagnosed and validated, whatever they and the labels hold."""
    results, truth = (content.get(key) for key in ("results", "truth"))
    names = ("truth.json", "results.json")

    def refusal_names_a_file(run):
        try:
            return run()
        except UserError as error:
            assert "\n" not in str(error) and any(name in str(error) for name in names), str(error)
            return None

    if refusal_names_a_file(lambda: score(truth, results, names)):
        refusal_names_a_file(lambda: diagnose(truth, results, names))
    for name, value in zip(names, (truth, results)):
        (folder / name).write_text(json.dumps(value))
    refusal_names_a_file(lambda: validate(folder / names[1], folder / names[0]))


SIZES = st.sampled_from([(20, 30), (1, 1), (1, 7), (8, 1), (10**6, 10**6)])


@given(SIZES, st.binary(max_size=12) | st.text(st.characters(codec="ascii"), max_size=12))
@example((10**6, 10**6), "PPPPPPPP0")
def test_compressed_runs(size, counts):
    """What is taken for a mask covers the frame exactly, as pycocotools' own decoder has it."""
    rle, problem = compact_segmentation({"size": list(size), "counts": counts}, *size)
    if problem:
        assert "\n" not in problem
        return
    assert sum(run_lengths(counts)) == size[0] * size[1]
    if size[0] * size[1] < 10**6:
        mask = decode_segmentation(rle, *size)
        assert mask.shape == size and mask.sum() == coco_mask.area(rle) == sum(run_lengths(counts)[1::2])


def run_lengths(counts):
    """The run lengths of a compressed RLE, a number at a time: COCO's maskApi in plain words."""
    text = counts if isinstance(counts, bytes) else counts.encode()
    runs, at = [], 0
    while at < len(text):
        value = shift = 0
        while True:
            code = text[at] - 48
            at += 1
            value |= (code & 31) << shift
            shift += 5
            if not code & 32:
                break
        value -= (1 << shift) if code & 16 else 0
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return runs


COUNTS = st.lists(st.integers(0, 40) | st.sampled_from([600, 10**12, -1, True, 1.5]), max_size=5)


@given(SIZES, COUNTS)
@example((20, 30), [600])
@example((10**6, 10**6), [10**12])
def test_runs_of_a_list(size, counts):
    rle, problem = compact_segmentation({"size": list(size), "counts": counts}, *size)
    assert (problem is None) == (rle is not None)
    if rle is not None:
        assert size[0] * size[1] < 2**28
        assert decode_segmentation(rle, *size).sum() == sum(counts[1::2])


FAR = st.sampled_from([0, 1, 5, 29, 30, -4, 999_999, -999_999, 1e6, 1e300, float("nan"), "7", None])


@given(st.lists(st.lists(FAR | st.floats(-50, 50), max_size=9), max_size=3))
@example([[0, 0, 999_999, 0, 0, 1] * 2000])
def test_polygons(outlines):
    """Outlines that pycocotools would need gigabytes for are refused."""
    _, problem = compact_segmentation(outlines, 20, 30)
    if not problem:
        assert decode_segmentation(outlines, 20, 30).shape == (20, 30)


def description():
    config = base_config()
    return json.loads(json.dumps(Metadata(config, [(1, "a"), (4, "b")], 3).to_json()))


@given(changed(description()))
def test_descriptions_of_checkpoints(folder, content):
    """What is read has every key of a config, each of the kind that it must be."""
    (folder / "step" / "about").mkdir(parents=True, exist_ok=True)
    (folder / "step" / "about" / "metadata").write_text(json.dumps(content))
    about = refused_or(read_metadata, folder / "step")
    if about is not None:
        assert all(isinstance(name, str) for _, name in about.categories)
        build_model(about.config, max(len(about.categories), 1))


def safetensors():
    header = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
    header |= {"b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]}}
    header |= {"__metadata__": {weights.OURS: json.dumps(description())}}
    return header


def safetensors_bytes(header):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(32)


@given(changed(safetensors()).map(safetensors_bytes) | cut_or_flipped(safetensors_bytes(safetensors())))
@example(struct.pack("<Q", 2**62) + b"{}")
@example(safetensors_bytes({"a": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 32]}}))
def test_safetensors(folder, content):
    path = folder / "weights.safetensors"
    path.write_bytes(content)
    found = refused_or(weights.read, path)
    if found is not None:
        assert sum(x.nbytes for x in found.tensors.values()) <= len(content)


def picture(suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 16, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, {"jpg": "jpeg"}.get(suffix, suffix))
    return stream.getvalue()


@given(st.sampled_from(["jpg", "png", "bmp", "webp"]).map(picture).flatmap(cut_or_flipped))
def test_images(folder, content):
    path = folder / "frame"
    path.write_bytes(content)
    image = refused_or(read_image, path)
    assert image is None or (image.dtype == np.uint8 and image.shape[2:] == (3,))
