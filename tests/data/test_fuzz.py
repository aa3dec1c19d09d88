"""Randomly changed annotations and images: each is read, or rejected with one line that names it."""

import copy
import io
import json

import numpy as np
import pytest
from hypothesis import example, given, target
from hypothesis import strategies as st
from PIL import Image

from masktrack_jax.data.json_files import read_json, read_labels
from masktrack_jax.data.lint.dataset import lint
from masktrack_jax.data.vis import read_vis
from masktrack_jax.evaluation.validate import validate
from masktrack_jax.masks.rle import decode_mask, mask_box
from masktrack_jax.masks.segmentations import decode_segmentation
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.video.images import inspect_image, read_image
from tests.helpers.annotations import annotations, cocovid, with_polygons
from tests.helpers.mutations import changed, cut_or_flipped, refused_or
from tests.helpers.valid_labels import FORMS, valid_labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


ANNOTATIONS = [annotations(), with_polygons(), cocovid(annotations())]


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
def test_every_command_has_one_verdict(folder, content):
    """Reader, evaluator's reader and validator refuse with one line, which the linter says too."""
    path = folder / "judged.json"
    path.write_text(json.dumps(content))
    (folder / "results.json").write_text("[]")
    lines = []
    for read in (read_labels, read_vis, lambda path: validate(folder / "results.json", path)):
        try:
            read(path)
            lines.append(None)
        except UserError as error:
            lines.append(str(error))
    findings = refused_or(lint, path)
    assert lines[0] == lines[2]
    if lines[0] != lines[1]:  # frames are needed by training alone
        assert lines[0] is None and "has no list of frames `file_names`" in lines[1]
    if findings is None:
        assert lines[0] is not None
    elif lines[1] is not None:
        assert findings.num_errors


@given(valid_labels(), st.sampled_from(list(FORMS)))
def test_every_form_of_a_file_is_read_alike(folder, labels, form):
    """The same objects by training and evaluation, and no error of the linter."""
    content = copy.deepcopy(labels.content)
    FORMS[form](content)
    path = folder / "valid.json"
    path.write_text(json.dumps(content))
    dataset, read = read_vis(path), read_labels(path)
    seen = [
        masks for masks in labels.masks if form != "CocoVID" or masks.any()
    ]  # it has records of boxes only
    objects = sorted(
        (found for some in dataset.objects.values() for found in some), key=lambda found: found.annotation_id
    )
    expected = sorted(_key(masks) for masks in seen)
    assert sorted(_key(_decode(found.segmentations, seen)) for found in objects) == expected
    assert (
        sorted(_key(_decode(record["segmentations"], seen)) for record in read.get("annotations", ()))
        == expected
    )
    assert [video.file_names for video in dataset.videos] == [
        tuple(video["file_names"]) for video in labels.content["videos"]
    ]
    for found in objects:
        for rle, box in zip(found.segmentations, found.boxes, strict=True):
            assert (rle is None) == (box is None)
            if rle is not None:
                x, y, width, height = mask_box(rle)
                assert box == (x, y, x + width, y + height)
    assert lint(path).errors.keys() <= {"objects without a pixel in any frame"}


def _decode(segmentations, masks):
    size = masks[0].shape[1:]
    return np.array([np.zeros(size, bool) if rle is None else decode_mask(rle) for rle in segmentations])


def _key(masks):
    return masks.shape, masks.astype(np.uint8).tobytes()


@given(cut_or_flipped(json.dumps(annotations()).encode()))
@example(b"[" * 100_000)
@example(b'{"videos": ' + b"1" * 10_000 + b"}")
def test_json_text(folder, content):
    path = folder / "text.json"
    path.write_bytes(content)
    for read in (read_vis, read_json):
        refused_or(read, path)


def picture(suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 16, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, {"jpg": "jpeg"}.get(suffix, suffix))
    return stream.getvalue()


@given(st.sampled_from(["jpg", "png", "bmp", "webp", "gif", "tiff"]).map(picture).flatmap(cut_or_flipped))
def test_images(folder, content):
    path = folder / "frame"
    path.write_bytes(content)
    image = refused_or(read_image, path)
    size = refused_or(lambda path: inspect_image(path).size, path)
    assert image is None or (image.dtype == np.uint8 and image.shape == (*size, 3))
    if size != (24, 16):
        assert refused_or(lambda path: read_image(path, size=(24, 16)), path) is None
