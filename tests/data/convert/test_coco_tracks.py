"""COCO files that state tracks, have other separators or types, or name files outside of the images."""

import json

import pytest
from PIL import Image

from masktrack_jax.data.convert.convert import convert
from masktrack_jax.runtime.errors import UserError
from tests.helpers.convert import (
    HEIGHT,
    WIDTH,
    assert_masks,
    assert_nothing_left,
    converted,
    rectangle,
    write_image,
)

SQUARE = [4, 6, 12, 6, 12, 14, 4, 14]


def polygon(left):
    return [[left, 6, left + 8, 6, left + 8, 14, left, 14]]


def image(number, name, **more):
    return {"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH} | more


def label(number, image_id, left=4, **more):
    record = {"id": number, "image_id": image_id, "category_id": 1, "segmentation": polygon(left)}
    return record | {"iscrowd": 0} | more


def write(folder, images, annotations, categories=("cat", "dog")):
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(categories, 1)],
    }
    path = folder / "instances_default.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def pictures(tmp_path):
    """Four frames in the folder of an export called clip."""
    folder = tmp_path / "clip"
    for frame in (0, 1, 2, 10):
        write_image(folder / f"frame_{frame}.PNG", shade=frame)
    return folder


FRAMES = [image(place, f"frame_{frame}.PNG") for place, frame in enumerate((10, 2, 1, 0))]


@pytest.mark.parametrize("where", ["attributes", "record"])
@pytest.mark.parametrize("key", ["track_id", "instance_id"])
def test_frames_of_a_folder_with_track_ids_are_one_video(pictures, tmp_path, where, key):
    def tracked(track):
        return {"attributes": {key: track, "occluded": False}} if where == "attributes" else {key: track}

    labels = [
        label(1, 3, 4, **tracked(0)),
        label(2, 2, 6, **tracked(0)),
        label(3, 0, 8, **tracked(0)),
        label(4, 2, 16, **tracked(7.0)),
        label(5, 1, 10, category_id=2),
    ]
    path = write(pictures, FRAMES, labels)
    dataset, found, _ = converted("coco", path, tmp_path / "out", images=pictures)
    (video,) = dataset.videos
    assert video.file_names == tuple(f"clip/frame_{frame}.PNG" for frame in (0, 1, 2, 10))
    squares = {left: rectangle(left, 6, left + 8, 14) for left in (4, 6, 8, 10, 16)}
    first, second = found["clip"]["cat"]
    assert_masks(first, [squares[4], squares[6], None, squares[8]])
    assert_masks(second, [None, squares[16], None, None])
    assert_masks(found["clip"]["dog"][0], [None, None, squares[10], None])
    notes = convert("coco", path, tmp_path / "again", images=pictures).notes
    assert notes == {"annotations without a track id, each a track of one frame": 1}


def test_a_track_that_changes_its_category_is_noted(pictures, tmp_path):
    labels = [label(1, 2, track_id=5), label(2, 3, track_id=5, category_id=2)]
    path = write(pictures, FRAMES, labels)
    done = convert("coco", path, tmp_path / "out", images=pictures)
    assert done.notes == {"tracks whose category changes, taken from their first frame": 1}
    assert done.counts._asdict() == {"videos": 1, "frames": 4, "tracks": 1, "objects": 2, "categories": 2}


def test_images_of_a_video_id_are_one_video_in_the_order_of_their_frame_ids(pictures, tmp_path):
    images = [
        image(1, "frame_0.PNG", video_id=3, frame_id=1),
        image(2, "frame_1.PNG", video_id=3, frame_id=0),
        image(3, "frame_2.PNG", video_id=4, frame_id=0),
    ]
    path = write(pictures, images, [label(n, n, instance_id=1) for n in (1, 2, 3)])
    dataset, _, _ = converted("coco", path, tmp_path / "out", images=pictures)
    assert [video.file_names for video in dataset.videos] == [
        ("clip_3/frame_1.PNG", "clip_3/frame_0.PNG"),
        ("clip_4/frame_2.PNG",),
    ]


def test_backslashes_separate_folders(tmp_path):
    write_image(tmp_path / "images" / "1" / "00ab.jpg")
    path = write(tmp_path, [image(0, "images\\1\\00ab.jpg")], [label(0, 0)])
    dataset, found, _ = converted("coco", path, tmp_path / "out", images=tmp_path)
    assert dataset.videos[0].file_names == ("images/1/00ab/00000.jpg",)
    assert_masks(found["images/1/00ab"]["cat"][0], [rectangle(4, 6, 12, 14)])


def test_parts_of_polygons_under_three_points_are_left_out(pictures, tmp_path):
    line = [1, 1, 5, 5]
    labels = [label(1, 0, segmentation=[SQUARE, line]), label(2, 0, segmentation=[line]), label(3, 1)]
    done = convert("coco", write(pictures, FRAMES, labels), tmp_path / "out", images=pictures)
    assert done.counts.tracks == 2
    assert done.left_out == {
        "parts of polygons with under 3 points": 2,
        "objects without a pixel in any frame": 1,
    }


def test_polygons_are_cut_at_the_frame_with_a_line(pictures, tmp_path):
    labels = [label(1, 0, track_id=1), label(2, 1, left=26, track_id=1), label(3, 2, left=40, track_id=1)]
    path = write(pictures, FRAMES, labels)
    _, found, left_out = converted("coco", path, tmp_path / "out", images=pictures)
    assert_masks(found["clip"]["cat"][0], [None, None, rectangle(26, 6, 30, 14), rectangle(4, 6, 12, 14)])
    assert left_out == {"masks without a pixel": 1}
    done = convert("coco", path, tmp_path / "again", images=pictures)
    assert done.notes == {"polygons that leave the frame, cut at its edge": 2}


def test_categories_of_one_name_are_one(pictures, tmp_path):
    labels = [label(1, 0), label(2, 0, left=14, category_id=2)]
    path = write(pictures, FRAMES, labels, categories=("cat", "cat"))
    done = convert("coco", path, tmp_path / "out", images=pictures)
    assert (done.counts.categories, done.counts.tracks) == (1, 2)
    assert list(done.notes) == [
        "categories whose ids are new, because the given ids or names were not unique"
    ]


def refused(path, tmp_path, match, **options):
    with pytest.raises(UserError, match=match) as caught:
        convert("coco", path, tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert_nothing_left(tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "images, labels, match",
    [
        ([image("a", "frame_0.PNG")], [label(1, "a")], "image number 1 has `id` 'a' .text."),
        ([image(1, "frame_0.PNG")], [label(1, "1")], "annotation 1 has `image_id` '1' .text."),
        ([image(1, "frame_0.PNG", height="20")], [], "image 1 has `height` '20' .text."),
        ([image(1, "frame_0.PNG", width=10**400)], [], "image 1 has `width` a number of 401 digits"),
        ([image(1, 7)], [], "image 1 has `file_name` 7, expected a name"),
        (
            [image(1, "frame_0.PNG")],
            [label(1, 1, iscrowd="0")],
            "annotation 1 has `iscrowd` '0' .text.",
        ),
        ([image(1, "frame_0.PNG")], [label(1, 1, track_id=[1])], r"annotation 1 has `track_id` \[1\]"),
        (
            [image(1, "frame_0.PNG")],
            [label(1, 1, segmentation=[[1e400] * 6])],
            "annotation 1: .* far outside",
        ),
        (
            [image(1, "frame_0.PNG")],
            [label(1, 1, segmentation=[[10**400] * 6])],
            "annotation 1: .* far outside",
        ),
        (
            [image(1, "frame_0.PNG")],
            [label(1, 1, segmentation=None)],
            "no object in any video .*: 1 annotations",
        ),
        (
            [image(1, "frame_0.PNG")],
            [label(1, 1, track_id=3), label(2, 1, track_id=3)],
            "annotation 2 is the second of track 3 in image 1",
        ),
    ],
)
def test_a_wrong_type_is_called_a_wrong_type(pictures, tmp_path, images, labels, match):
    refused(write(pictures, images, labels), tmp_path, match, images=pictures)


@pytest.mark.parametrize(
    "name",
    [
        "../secret.png",
        "..\\secret.png",
        "/etc/secret.png",
        "C:\\secret.png",
        "a\0.png",
        "link.png",
        "\ud800.png",
    ],
)
def test_images_outside_of_the_folder_are_refused(pictures, tmp_path, name):
    write_image(tmp_path / "secret.png")
    (pictures / "link.png").symlink_to(tmp_path / "secret.png")
    path = write(pictures, [image(1, name)], [label(1, 1)])
    refused(path, tmp_path, "image 1 has `file_name` .*, which|ud800.* cannot be the name", images=pictures)


def test_repeated_images_cannot_have_track_ids(pictures, tmp_path):
    path = write(pictures, FRAMES, [label(1, 0, track_id=1)])
    refused(path, tmp_path, "leave out --frames", images=pictures, frames=2)


def test_an_exif_orientation_that_changes_the_size_is_named(tmp_path):
    turned = Image.new("RGB", (WIDTH, HEIGHT))
    turned.getexif()[0x0112] = 6
    turned.save(tmp_path / "a.jpg", exif=turned.getexif())
    path = write(tmp_path, [image(1, "a.jpg")], [label(1, 1)])
    refused(path, tmp_path, "stated as 20x30 .* is 30x20; its EXIF orientation 6 turns it", images=tmp_path)


def test_an_exif_orientation_of_the_same_size_is_noted(tmp_path):
    turned = Image.new("RGB", (WIDTH, HEIGHT))
    turned.getexif()[0x0112] = 3
    turned.save(tmp_path / "a.jpg", exif=turned.getexif())
    path = write(tmp_path, [image(1, "a.jpg")], [label(1, 1)])
    notes = convert("coco", path, tmp_path / "out", images=tmp_path).notes
    assert notes == {"images with an EXIF orientation, read as they are shown": 1}


def test_ids_as_text_are_ids(pictures, tmp_path):
    frames = [record | {"video_id": "ab"[place % 2]} for place, record in enumerate(FRAMES)]
    labels = [label(1, 0, track_id="1"), label(2, 2, track_id=1), label(3, 1, track_id="x"), label(4, 3)]
    done = convert("coco", write(pictures, frames, labels), tmp_path / "out", images=pictures)
    assert done.counts.videos == 2 and done.counts.tracks == 3
    assert done.notes == {"annotations without a track id, each a track of one frame": 1}


def test_contradictions_are_counted(pictures, tmp_path):
    frames = [record | {"frame_id": 5, "file_name": record["file_name"].lower()} for record in FRAMES]
    labels = [label(1, 2, track_id=1), label(2, 3, track_id=1, iscrowd=1)]
    done = convert("coco", write(pictures, frames, labels), tmp_path / "out", images=pictures)
    assert done.notes == {
        "videos with two frames of one number, in the order of the frames' names": 1,
        "tracks whose `iscrowd` changes, taken from their first frame": 1,
    }


@pytest.mark.parametrize(
    "frames, labels, words",
    [
        ([*FRAMES, image(9, "frame_2.PNG")], [], r"frame_2.PNG: is named twice in the labels of video clip"),
        (
            [image(0, "frame_0.PNG", frame_id="0")],
            [],
            r"image 0 has `frame_id` '0' \(text\), expected a whole",
        ),
        (FRAMES, [{"segmentation": [[[4, 6], [12, 6], [12, 14]]]}], "a polygon that is not a list of three"),
    ],
)
def test_the_cause_is_named(pictures, tmp_path, frames, labels, words):
    found = [label(1, 0, track_id=1), *(label(2, 0) | more for more in labels)]
    with pytest.raises(UserError, match=words):
        convert("coco", write(pictures, frames, found), tmp_path / "out", images=pictures)
