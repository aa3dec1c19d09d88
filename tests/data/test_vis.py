"""The index of a data set, its segmentations and images: what is read, and one line for what cannot be."""

import copy
import json

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from masktrack_jax.data.images import bucket_for, fit_size, pad_image, read_image, resize_image
from masktrack_jax.data.vis import decode_segmentation, read_vis
from masktrack_jax.runtime.errors import UserError

HEIGHT, WIDTH = 20, 30


def _mask():
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[4:12, 6:17] = 1
    return mask


def _uncompressed(mask):
    """Run lengths of a mask in column order, counted here without pycocotools."""
    counts, value, run = [], 0, 0
    for pixel in mask.flatten(order="F").tolist():
        if pixel != value:
            counts, value, run = [*counts, run], pixel, 0
        run += 1
    return {"size": list(mask.shape), "counts": [*counts, run]}


def _compressed(mask):
    rle = coco_mask.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def _content():
    """Two videos of two frames; video 7 holds an object seen in the first frame only."""
    videos = [
        {"id": i, "height": HEIGHT, "width": WIDTH, "length": 2, "file_names": [f"v{i}/0.jpg", f"v{i}/1.jpg"]}
        for i in (7, 3)
    ]
    annotation = {"id": 1, "video_id": 7, "category_id": 9, "iscrowd": 0, "areas": [88, None]}
    annotation |= {"segmentations": [_uncompressed(_mask()), None], "bboxes": [[6, 4, 11, 8], None]}
    categories = [{"id": 9, "name": "seal"}, {"id": 4, "name": "ape"}]
    return {"categories": categories, "videos": videos, "annotations": [annotation]}


def _read(tmp_path, content):
    path = tmp_path / "instances.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_vis(path)


def test_three_kinds_of_segmentation_are_one_mask():
    mask = _mask()
    polygon = [[6, 4, 17, 4, 17, 12, 6, 12]]
    for segmentation in (_uncompressed(mask), _compressed(mask), polygon):
        decoded = decode_segmentation(segmentation, HEIGHT, WIDTH)
        assert decoded.dtype == np.uint8
        np.testing.assert_array_equal(decoded, mask)
    noise = (np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.4).astype(np.uint8)
    as_bytes = coco_mask.encode(np.asfortranarray(noise))
    for segmentation in (_uncompressed(noise), _compressed(noise), as_bytes):
        np.testing.assert_array_equal(decode_segmentation(segmentation, HEIGHT, WIDTH), noise)


def test_compressed_counts_are_checked_to_the_last_character():
    noise = (np.random.default_rng(1).random((200, 300)) < 0.5).astype(np.uint8)
    noise[:, 50:250] = 0
    whole = _compressed(noise)
    np.testing.assert_array_equal(decode_segmentation(whole, 200, 300), noise)
    for cut in (1, 2, 3, 50, len(whole["counts"]) - 1):
        with pytest.raises(UserError, match="do not describe"):
            decode_segmentation(whole | {"counts": whole["counts"][:-cut]}, 200, 300)


def test_polygons_of_one_object_are_joined():
    left, right = [2, 2, 6, 2, 6, 8, 2, 8], [10, 2, 14, 2, 14, 8, 10, 8]
    both = decode_segmentation([left, right], HEIGHT, WIDTH)
    parts = [decode_segmentation([polygon], HEIGHT, WIDTH) for polygon in (left, right)]
    np.testing.assert_array_equal(both, parts[0] | parts[1])


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        {"counts": [600]},
        {"size": 20, "counts": [600]},
        {"size": [WIDTH, HEIGHT], "counts": [600]},
        {"size": [HEIGHT, WIDTH], "counts": [599]},
        {"size": [HEIGHT, WIDTH], "counts": [601, -1]},
        {"size": [HEIGHT, WIDTH], "counts": "zzzzzz"},
        {"size": [HEIGHT, WIDTH], "counts": "0"},
        {"size": [HEIGHT, WIDTH], "counts": "PPPPPPPPPPPPP0"},
        {"size": [HEIGHT, WIDTH], "counts": "é"},
        {"size": [HEIGHT, WIDTH], "counts": 5},
        [],
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, "6"]],
        [[1, 2, 3, 4, 5, 1e30]],
        [[1, 2, 3, 4, 5, float("nan")]],
        [[0, 0, 999_999, 0, 0, 1] * 3],
    ],
)
def test_bad_segmentation_is_one_line(segmentation):
    with pytest.raises(UserError) as caught:
        decode_segmentation(segmentation, HEIGHT, WIDTH)
    assert "\n" not in str(caught.value)


def test_read_vis(tmp_path):
    dataset = _read(tmp_path, _content())
    assert [(c.id, c.name) for c in dataset.categories] == [(9, "seal"), (4, "ape")]
    video, empty = dataset.videos
    assert (video.id, video.height, video.width, video.length, video.name) == (7, HEIGHT, WIDTH, 2, "v7")
    assert dataset.objects_of(empty) == () and dataset.labelled
    assert dataset.frame_path(video, 1) == tmp_path / "JPEGImages" / "v7" / "1.jpg"
    (found,) = dataset.objects_of(video)
    assert (found.label, found.iscrowd, found.boxes) == (0, False, ((6.0, 4.0, 17.0, 12.0), None))
    np.testing.assert_array_equal(decode_segmentation(found.segmentations[0], HEIGHT, WIDTH), _mask())


def test_public_validation_files_have_no_annotations(tmp_path):
    content = _content()
    for absent in ({}, {"annotations": None}):
        dataset = _read(tmp_path, {key: content[key] for key in ("categories", "videos")} | absent)
        assert not dataset.labelled and dataset.objects_of(dataset.videos[0]) == ()


def test_boxes_come_from_masks_where_the_file_has_none(tmp_path):
    content = _content()
    for key in ("bboxes", "areas"):
        del content["annotations"][0][key]
    assert _read(tmp_path, content).objects[7][0].boxes == ((6.0, 4.0, 17.0, 12.0), None)


@pytest.mark.parametrize(
    ("box", "area", "expected"),
    [
        ([-5, 4, 11, 8], 88, (0.0, 4.0, 6.0, 12.0)),
        ([25, 15, 50, 50], 88, (25.0, 15.0, 30.0, 20.0)),
        ([6, 4, 0.5, 8], 88, None),
        ([6, 4, 11, 8], 0, None),
        ([40, 4, 11, 8], 88, None),
        (None, 88, None),
    ],
)
def test_boxes_are_clipped_and_filtered(tmp_path, box, area, expected):
    content = _content()
    content["annotations"][0] |= {"bboxes": [box, None], "areas": [area, None]}
    found = _read(tmp_path, content).objects[7][0]
    assert found.boxes[0] == expected
    assert (found.segmentations[0] is None) == (expected is None)


def _set(*keys, to):
    def change(content):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = to

    return change


def _drop(*keys):
    def change(content):
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop("videos"), "`videos`"),
        (_set("categories", to={}), "`categories`"),
        (_set("annotations", to=[1]), "`annotations`"),
        (_drop("videos", 0, "id"), "video number 1 .*`id`"),
        (_drop("videos", 0, "height"), "video 7 .*`height`"),
        (_set("videos", 1, "width", to=-4), "video 3 .*`width`"),
        (_set("videos", 0, "file_names", to=[]), "video 7 .*`file_names`"),
        (_set("videos", 0, "file_names", 1, to="/v7/1.jpg"), "video 7 has frame '/v7/1.jpg'.* not below"),
        (_set("videos", 0, "file_names", 1, to="v7/../../1.jpg"), "video 7 has frame .* not below"),
        (_set("videos", 0, "file_names", 1, to="..\\1.jpg"), "video 7 has frame .* not below"),
        (_set("videos", 0, "width", to=2**28), "video 7 has frames of 20 x 268435456, more than"),
        (_set("videos", 0, "length", to=3), "video 7 has `length` 3 but 2"),
        (_set("videos", 1, "id", to=7), "video 7 appears twice"),
        (_set("categories", 1, "id", to=9), "category 9 appears twice"),
        (_drop("categories", 0, "name"), "category 9 .*`name`"),
        (_drop("annotations", 0, "video_id"), "annotation 1 has no `video_id`"),
        (_drop("annotations", 0, "segmentations"), "annotation 1 has no `segmentations`"),
        (_set("annotations", 0, "segmentations", to=None), "annotation 1 has no list in `segmentations`"),
        (_set("annotations", 0, "video_id", to=8), "annotation 1 .*8.* not among the videos"),
        (_set("annotations", 0, "category_id", to=[9]), "annotation 1 .*not among the categories"),
        (_set("annotations", 0, "bboxes", to=[None]), "annotation 1 has 1 entries in `bboxes`"),
        (_set("annotations", 0, "bboxes", 0, to=[1, 2, 3]), "annotation 1, frame 0, has box"),
        (_set("annotations", 0, "areas", to=[1, 2, 3]), "annotation 1 has 3 entries in `areas`"),
        (_set("annotations", 0, "segmentations", 0, "size", to=[9, 9]), r"annotation 1, frame 0, .*\[9, 9\]"),
        (
            _set("annotations", 0, "segmentations", 0, "counts", to=[5]),
            "annotation 1, frame 0, .*add up to 5",
        ),
        (
            _set("annotations", 0, "segmentations", 0, to={"size": [9, 9], "counts": "ab"}),
            r"annotation 1, frame 0, has RLE of size \[9, 9\]",
        ),
    ],
)
def test_bad_record_is_one_line_that_names_it(tmp_path, change, message):
    content = copy.deepcopy(_content())
    change(content)
    with pytest.raises(UserError, match=message) as caught:
        _read(tmp_path, content)
    assert "\n" not in str(caught.value) and str(tmp_path / "instances.json") in str(caught.value)


def test_bad_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match="not valid JSON at line 2 column 3"):
        _read(tmp_path, "{\n  videos}")
    with pytest.raises(UserError, match="is not an object"):
        _read(tmp_path, "[]")
    with pytest.raises(UserError, match=r"absent\.json: no such annotations file"):
        read_vis(tmp_path / "absent.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_vis(tmp_path)
    (tmp_path / "picture.json").write_bytes(b"\xff\xd8\xff\xe0 jpeg")
    with pytest.raises(UserError, match="not JSON text"):
        read_vis(tmp_path / "picture.json")


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
    """A few hundred bytes that would take gigabytes."""
    Image.new("1", (40_000, 40_000)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 300_000
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
