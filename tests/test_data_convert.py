"""The converters: masks drawn here, written in each format, come back pixel by pixel and lint clean."""

import base64
import filecmp
import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from masktrack_jax.data.convert import __main__ as command
from masktrack_jax.data.convert.__main__ import convert
from masktrack_jax.data.convert.writer import in_order
from masktrack_jax.data.lint import lint
from masktrack_jax.data.vis import decode_segmentation, read_vis
from masktrack_jax.errors import UserError

HEIGHT, WIDTH = 20, 30


def rectangle(x1, y1, x2, y2):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def corners(x1, y1, x2, y2):
    return [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]


def write_image(path, shade=0, size=(HEIGHT, WIDTH)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), shade, np.uint8)).save(path)


def write_palette(path, indices, mode="P"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(indices.astype(np.uint8))
    if mode == "P":
        image.putpalette(np.random.default_rng(0).bytes(768))
    image.save(path)


def converted(kind, input_path, output, **options):
    """Convert, lint, read back: (data set, {video: {category: [objects' masks]}}, what was left out)."""
    annotations, left_out = convert(kind, input_path, output, **options)
    findings = lint(annotations, output / "JPEGImages")
    assert findings.num_errors == 0, findings.lines()
    dataset = read_vis(annotations)
    found = {}
    for video in dataset.videos:
        objects = found.setdefault(video.name, {})
        for item in dataset.objects_of(video):
            name = dataset.categories[item.label].name
            masks = [
                None if x is None else decode_segmentation(x, video.height, video.width).astype(bool)
                for x in item.segmentations
            ]
            objects.setdefault(name, []).append(masks)
    return dataset, found, left_out


def assert_masks(found, expected):
    assert len(found) == len(expected)
    for mask, wanted in zip(found, expected):
        assert (mask is None) == (wanted is None)
        if wanted is not None:
            np.testing.assert_array_equal(mask, wanted)


def assert_nothing_left(folder):
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


# Palette PNGs


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


def test_youtube_vos_keeps_the_labelled_frames(youtube_vos, tmp_path):
    dataset, found, left_out = converted("youtube-vos", youtube_vos, tmp_path / "out")
    assert [(x.id, x.name) for x in dataset.categories] == [(1, "ape"), (2, "zebra")]
    (video,) = dataset.videos
    assert video.file_names == ("cafe/00000.jpg", "cafe/00005.jpg")
    assert_masks(found["cafe"]["zebra"][0], [rectangle(2, 3, 8, 9), rectangle(4, 3, 10, 9)])
    assert_masks(found["cafe"]["ape"][0], [None, rectangle(15, 10, 25, 18)])
    assert left_out == {
        "frames without a palette PNG, so not labelled": 5,
        "videos with void pixels (255), taken as background": 1,
    }
    copied, source = (root / "JPEGImages" / "cafe" / "00005.jpg" for root in (tmp_path / "out", youtube_vos))
    assert copied.read_bytes() == source.read_bytes() and not copied.is_symlink()


def test_boxes_and_areas_are_the_masks(youtube_vos, tmp_path):
    path, _ = convert("youtube-vos", youtube_vos, tmp_path / "out")
    ape, zebra = json.loads(path.read_text())["annotations"]
    assert (ape["bboxes"], ape["areas"]) == ([None, [15, 10, 10, 8]], [None, 80])
    assert (zebra["bboxes"], zebra["areas"]) == ([[2, 3, 6, 6], [4, 3, 6, 6]], [36, 36])
    assert (ape["length"], ape["height"], ape["width"], ape["iscrowd"]) == (2, HEIGHT, WIDTH, 0)


def test_the_same_input_gives_the_same_bytes(youtube_vos, tmp_path):
    for name in ("one", "two"):
        convert("youtube-vos", youtube_vos, tmp_path / name)
    assert filecmp.cmp(
        tmp_path / "one" / "instances.json", tmp_path / "two" / "instances.json", shallow=False
    )


def test_frames_can_be_links(youtube_vos, tmp_path):
    converted("youtube-vos", youtube_vos, tmp_path / "out", link=True)
    linked = tmp_path / "out" / "JPEGImages" / "cafe" / "00005.jpg"
    assert linked.is_symlink() and linked.resolve() == youtube_vos / "JPEGImages" / "cafe" / "00005.jpg"


def test_davis_has_one_category_and_a_folder_of_its_resolution(tmp_path):
    root = tmp_path / "DAVIS"
    for video in ("bear", "dog10", "dog9"):
        write_image(root / "JPEGImages" / "480p" / video / "00000.jpg")
    write_palette(root / "Annotations/480p/bear/00000.png", 255 * rectangle(1, 1, 9, 9), mode="L")
    write_palette(
        root / "Annotations/480p/dog9/00000.png", rectangle(1, 1, 9, 9) + 2 * rectangle(10, 1, 12, 9)
    )
    write_palette(root / "Annotations/480p/dog10/00000.png", np.zeros((HEIGHT, WIDTH)))
    dataset, found, left_out = converted("davis", root, tmp_path / "out")
    assert [video.name for video in dataset.videos] == ["bear", "dog9", "dog10"]
    assert_masks(found["bear"]["object"][0], [rectangle(1, 1, 9, 9)])  # DAVIS 2016 draws it white
    one, two = found["dog9"]["object"]
    assert_masks(one, [rectangle(1, 1, 9, 9)])
    assert_masks(two, [rectangle(10, 1, 12, 9)])
    assert found["dog10"] == {} and left_out == {}
    (tmp_path / "val.txt").write_text("dog10\nbear\n")
    dataset, _, _ = converted("davis", root, tmp_path / "chosen", videos=tmp_path / "val.txt")
    assert [video.name for video in dataset.videos] == ["bear", "dog10"]


def test_bad_palette_input_is_one_line(youtube_vos, tmp_path):
    png = youtube_vos / "Annotations" / "cafe" / "00005.png"
    whole = png.read_bytes()

    def fails(match):
        with pytest.raises(UserError, match=match) as caught:
            convert("youtube-vos", youtube_vos, tmp_path / "out")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()
        assert_nothing_left(tmp_path)

    write_image(png)
    fails(r"00005\.png: is RGB, not a palette PNG")
    png.write_bytes(whole[:60])
    fails(r"00005\.png: cannot be read as an image")
    write_palette(png, np.ones((HEIGHT, WIDTH - 1)))
    fails(r"00005\.png: is 20x29 \(height x width\), its frame 20x30")
    write_palette(png, 7 * rectangle(1, 1, 5, 5))
    fails(r"cafe: object 7 has no category")
    png.write_bytes(whole)
    frame = youtube_vos / "JPEGImages" / "cafe" / "00005.jpg"
    frame.write_bytes(frame.read_bytes()[:-200])
    fails(r"00005\.jpg: cannot be read as an image")
    write_image(frame, size=(10, 10))
    fails(r"00005\.jpg: is 10x10 .* the frames of a video must have one size")
    frame.unlink()
    fails(r"00005\.png: has no frame")
    (youtube_vos / "meta.json").write_text('{"videos": {"cafe": {"objects": {"1": {}}}}}')
    fails(r"meta\.json: does not say the category")
    png.unlink()
    (youtube_vos / "Annotations" / "cafe" / "00000.png").unlink()
    fails(r"vos: holds no Annotations")


# COCO


def coco_content():
    right, crowd = rectangle(20, 4, 28, 16), rectangle(0, 15, 30, 20)
    runs = [int(x) for x in np.diff(np.flatnonzero(np.diff(np.r_[2, crowd.ravel(order="F"), 2])))]
    runs = runs if not crowd[0, 0] else [0, *runs]
    polygon = [float(value) for point in corners(3, 4, 12, 10) for value in point]
    rle = coco_mask.encode(np.asfortranarray(right, np.uint8))
    shape = {"height": HEIGHT, "width": WIDTH}
    return {
        "images": [
            {"id": 31, "file_name": "sub/b.png", **shape},
            {"id": 4, "file_name": "a.jpg", **shape},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
        "annotations": [
            {"id": 1, "image_id": 31, "category_id": 3, "segmentation": [polygon]},
            {
                "id": 2,
                "image_id": 31,
                "category_id": 18,
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()},
            },
            {
                "id": 3,
                "image_id": 31,
                "category_id": 3,
                "iscrowd": 1,
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": runs},
            },
            {"id": 4, "image_id": 4, "category_id": 3, "bbox": [0, 0, 3, 3]},
        ],
    }


@pytest.fixture
def coco(tmp_path):
    write_image(tmp_path / "images" / "sub" / "b.png", shade=90)
    write_image(tmp_path / "images" / "a.jpg")
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(coco_content()))
    return path


@pytest.mark.parametrize("options, length", [({}, 1), ({"frames": 3}, 3)])
def test_coco_images_become_still_clips(coco, tmp_path, options, length):
    dataset, found, left_out = converted(
        "coco", coco, tmp_path / "out", images=tmp_path / "images", **options
    )
    assert [(x.id, x.name) for x in dataset.categories] == [(18, "dog"), (3, "car")]
    first, second = dataset.videos
    assert first.file_names == tuple(f"sub/b/{frame:05d}.png" for frame in range(length))
    assert second.file_names == tuple(f"a/{frame:05d}.jpg" for frame in range(length))
    car, crowd = found["sub/b"]["car"]
    assert_masks(car, [rectangle(3, 4, 12, 10)] * length)
    assert_masks(crowd, [rectangle(0, 15, 30, 20)] * length)
    assert_masks(found["sub/b"]["dog"][0], [rectangle(20, 4, 28, 16)] * length)
    assert [x.iscrowd for x in dataset.objects_of(first)] == [False, False, True]
    assert found["a"] == {} and left_out == {"annotations without a segmentation": 1}


def test_coco_images_of_one_stem_stay_apart(coco, tmp_path):
    content = coco_content()
    write_image(tmp_path / "images" / "a.png")
    content["images"][0]["file_name"] = "a.png"
    coco.write_text(json.dumps(content))
    dataset, found, _ = converted("coco", coco, tmp_path / "out", images=tmp_path / "images")
    assert [video.name for video in dataset.videos] == ["a.png", "a.jpg"]
    assert len(found["a.png"]["car"]) == 2 and found["a.jpg"] == {}


@pytest.mark.parametrize(
    "change, match",
    [
        (lambda x: x["annotations"][0].update(image_id=5), "annotation 1 is of an unknown image or category"),
        (
            lambda x: x["annotations"][0].update(category_id=5),
            "annotation 1 is of an unknown image or category",
        ),
        (lambda x: x["annotations"][0].update(segmentation=[[1, 2, 3]]), "annotation 1: .* polygon"),
        (lambda x: x["annotations"][1]["segmentation"].update(counts="0"), "annotation 2: .* `counts`"),
        (lambda x: x["images"][0].update(height=21), "image 31 is stated as 21x30"),
        (lambda x: x["images"][0].update(file_name="c.jpg"), r"c\.jpg: no such image"),
        (lambda x: x["images"][0].update(id=4), "an id is used twice in `images`"),
        (lambda x: x["images"][0].update(file_name="../images/a.jpg"), "is no name of a folder"),
        (lambda x: x["images"][0].pop("file_name"), "images number 1 has no `file_name`"),
        (lambda x: x["images"][0].update(file_name="."), "images number 1 has no `file_name`"),
        (lambda x: x.pop("categories"), "has no list `categories`"),
    ],
)
def test_bad_coco_is_one_line(coco, tmp_path, change, match):
    content = coco_content()
    change(content)
    coco.write_text(json.dumps(content))
    with pytest.raises(UserError, match=match) as caught:
        convert("coco", coco, tmp_path / "out", images=tmp_path / "images")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    assert_nothing_left(tmp_path)


# MOTS


def mots_line(frame, object_id, number, mask):
    counts = coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
    return f"{frame} {object_id} {number} {mask.shape[0]} {mask.shape[1]} {counts}\n"


def mots_lines(first):
    return [
        mots_line(first, 2001, 2, rectangle(1, 1, 6, 12)),
        mots_line(first, 10000, 10, rectangle(20, 0, 30, 5)),
        mots_line(first + 2, 1001, 1, rectangle(10, 10, 25, 18)),
        mots_line(first + 2, 2001, 2, rectangle(3, 1, 8, 12)),
    ]


@pytest.mark.parametrize("layout", ["kitti", "challenge"])
def test_mots_text_files(tmp_path, layout):
    root, options = tmp_path / "mots", {}
    first = 0 if layout == "kitti" else 1  # KITTI counts frames from 0, MOTSChallenge from 1
    if layout == "kitti":
        text, frames, options = (
            root / "0002.txt",
            tmp_path / "image_02" / "0002",
            {"images": tmp_path / "image_02"},
        )
    else:
        text, frames = root / "0002" / "gt" / "gt.txt", root / "0002" / "img1"
    for frame in range(3):
        write_image(frames / f"{first + frame:06d}.png", shade=frame)
    text.parent.mkdir(parents=True, exist_ok=True)
    text.write_text("".join(mots_lines(first)))
    dataset, found, left_out = converted("mots", root, tmp_path / "out", **options)
    assert [(x.id, x.name) for x in dataset.categories] == [(1, "car"), (2, "pedestrian")]
    assert dataset.videos[0].file_names[0] == f"0002/{first:06d}.png"
    assert_masks(found["0002"]["pedestrian"][0], [rectangle(1, 1, 6, 12), None, rectangle(3, 1, 8, 12)])
    assert_masks(found["0002"]["car"][0], [None, None, rectangle(10, 10, 25, 18)])
    assert len(found["0002"]["car"]) == len(found["0002"]["pedestrian"]) == 1
    assert left_out == {"regions to ignore (class 10)": 1}


def test_mots_masks_without_a_pixel_are_absent(tmp_path):
    for frame in range(3):
        write_image(tmp_path / "images" / "0002" / f"{frame:06d}.png")
    empty = mots_line(1, 2001, 2, rectangle(0, 0, 0, 0)) + mots_line(1, 2002, 2, rectangle(0, 0, 0, 0))
    (tmp_path / "0002.txt").write_text("".join(mots_lines(0)) + empty)
    _, found, left_out = converted(
        "mots", tmp_path / "0002.txt", tmp_path / "out", images=tmp_path / "images"
    )
    (pedestrian,) = found["0002"]["pedestrian"]
    assert pedestrian[1] is None and pedestrian[2] is not None
    assert left_out["objects without a pixel in any frame"] == 1


@pytest.mark.parametrize(
    "line, match",
    [
        ("0 1001 1 20 30\n", r"0002\.txt: line 5: is not `frame id class"),
        ("0 x 1 20 30 abc\n", r"0002\.txt: line 5: is not `frame id class"),
        (mots_line(2, 1001, 1, rectangle(1, 1, 2, 2)), r"line 5: object 1001 appears twice in frame 2"),
        (mots_line(1, 1001, 2, rectangle(1, 1, 2, 2)), r"line 5: object 1001 was of class 1, now of 2"),
        (mots_line(7, 1001, 1, rectangle(1, 1, 2, 2)), r"line 5: frame 7 has no image"),
        (mots_line(1, 1001, 1, rectangle(1, 1, 2, 2).T), r"line 5: has RLE of size \[30, 20\]"),
        ("1 1001 1 20 30 1\n", r"line 5: has compressed RLE `counts` that do not describe"),
    ],
)
def test_bad_mots_is_one_line(tmp_path, line, match):
    for frame in range(3):
        write_image(tmp_path / "images" / "0002" / f"{frame:06d}.png")
    (tmp_path / "0002.txt").write_text("".join(mots_lines(0)) + line)
    with pytest.raises(UserError, match=match) as caught:
        convert("mots", tmp_path / "0002.txt", tmp_path / "out", images=tmp_path / "images")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    assert_nothing_left(tmp_path)


# LabelMe


def labelme(name, shapes, **more):
    content = {"version": "5.4.1", "imagePath": name, "imageHeight": HEIGHT, "imageWidth": WIDTH}
    return json.dumps(content | {"shapes": shapes} | more)


def shape(label, points, group=None, kind="polygon", **more):
    return {"label": label, "points": points, "group_id": group, "shape_type": kind} | more


def labelme_shapes():
    """Shapes of two labelled frames."""
    part = np.zeros((4, 6), np.uint8)
    part[1:3, 2:5] = 255
    png = io.BytesIO()
    Image.fromarray(part).save(png, "PNG")
    mask = base64.b64encode(png.getvalue()).decode()
    first = [
        shape("cat", corners(1, 1, 5, 6), group=1),
        shape("cat", corners(10, 1, 14, 6), group=1),
        shape("cat", [[28, 18], [20, 10]], group=2, kind="rectangle"),
        shape("tree", [[3, 10], [8, 13]], kind="mask", mask=mask),
        shape("cat", [[1, 1]], group=1, kind="point"),
    ]
    return first, [shape("cat", corners(2, 1, 6, 6), group=1)]


@pytest.fixture
def labelme_folder(tmp_path):
    """Frames 1, 2, 9 and 10 of a video: labelled 2 and 10, empty 9."""
    folder = tmp_path / "in" / "park"
    for frame in (1, 2, 9, 10):
        write_image(folder / f"{frame}.jpg", shade=frame)
    first, second = labelme_shapes()
    (folder / "2.json").write_text(labelme("2.jpg", first))
    (folder / "9.json").write_text(labelme("9.jpg", []))
    (folder / "10.json").write_text(labelme("10.jpg", second))
    return folder


@pytest.mark.parametrize("whole", [True, False])
def test_labelme_polygons_with_group_ids(labelme_folder, tmp_path, whole):
    given = labelme_folder.parent if whole else labelme_folder
    dataset, found, left_out = converted("labelme", given, tmp_path / "out")
    assert dataset.videos[0].file_names == ("park/2.jpg", "park/9.jpg", "park/10.jpg")
    one, two = found["park"]["cat"]
    assert_masks(one, [rectangle(1, 1, 5, 6) | rectangle(10, 1, 14, 6), None, rectangle(2, 1, 6, 6)])
    assert_masks(two, [rectangle(20, 10, 28, 18), None, None])
    assert_masks(found["park"]["tree"][0], [rectangle(5, 11, 8, 13), None, None])
    assert left_out == {
        "frames without a json, so not labelled": 1,
        "shapes that have no area here (point)": 1,
    }


@pytest.mark.parametrize(
    "text, match",
    [
        ("{", "is not valid JSON"),
        ("{}", "it is no LabelMe file"),
        (labelme("3.jpg", []), r"its frame .*3\.jpg does not exist"),
        (labelme("2.jpg", [], imageHeight=7), r"2\.json: states 7x30 .* its frame is 20x30"),
        (labelme("2.jpg", [{"label": "cat"}]), "shape 1 has no `label` and `points`"),
        (
            labelme("2.jpg", [shape("cat", corners(1, 1, 2, 2)), shape("cat", corners(3, 3, 4, 4))]),
            "two shapes 'cat' without `group_id`",
        ),
        (labelme("2.jpg", [shape("cat", [[1, 1], [2, 2]])]), r"2\.json: shape 1 \(polygon\) cannot be drawn"),
        (labelme("2.jpg", [shape("cat", [["a", 1]] * 3)]), r"shape 1 \(polygon\) cannot be drawn"),
        (
            labelme("2.jpg", [shape("cat", [[1, 1], [2, 2]], kind="mask", mask="??")]),
            r"shape 1 \(mask\) cannot be drawn",
        ),
    ],
)
def test_bad_labelme_is_one_line(labelme_folder, tmp_path, text, match):
    (labelme_folder / "2.json").write_text(text)
    with pytest.raises(UserError, match=match) as caught:
        convert("labelme", labelme_folder, tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    assert_nothing_left(tmp_path)


def test_two_jsons_of_one_frame_are_refused(labelme_folder, tmp_path):
    (labelme_folder / "2 copy.json").write_text(labelme("2.jpg", []))
    with pytest.raises(UserError, match=r"2\.jpg: another frame has the same video and name"):
        convert("labelme", labelme_folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# CVAT


def cvat(tracks, size=5, head="", meta=""):
    labels = "".join(f"<label><name>{name}</name></label>" for name in ("truck", "bus"))
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n{head}<annotations><version>1.1</version><meta><task>'
        f"<size>{size}</size><labels>{labels}</labels>{meta}</task></meta>{tracks}</annotations>"
    )


def track(label, *shapes, number=0):
    return f'<track id="{number}" label="{label}" source="manual">{"".join(shapes)}</track>'


def box(frame, x1, y1, x2, y2, outside=0, **more):
    more = "".join(f' {key}="{value}"' for key, value in more.items())
    return (
        f'<box frame="{frame}" outside="{outside}" occluded="0" keyframe="1" xtl="{x1}" ytl="{y1}" '
        f'xbr="{x2}" ybr="{y2}" z_order="0"{more}><attribute name="a">1</attribute></box>'
    )


def polygon(frame, points, outside=0):
    text = ";".join(f"{x:.2f},{y:.2f}" for x, y in points)
    return f'<polygon frame="{frame}" outside="{outside}" occluded="0" keyframe="1" points="{text}"/>'


def cvat_mask(frame, rle, left, top, width, height, outside=0):
    return (
        f'<mask frame="{frame}" outside="{outside}" occluded="0" keyframe="1" rle="{rle}" left="{left}" '
        f'top="{top}" width="{width}" height="{height}"/>'
    )


CVAT_TRACKS = (
    # key frames 0 and 2, gone at 3: moves by 2 pixels a frame
    track("truck", box(0, 2, 3, 8, 9), box(2, 6, 3, 12, 9), box(3, 6, 3, 12, 9, outside=1)),
    # every frame written, gone at 1, back at 2, then it stays to the end
    track(
        "bus",
        polygon(0, corners(15, 2, 20, 8)),
        polygon(1, corners(15, 2, 20, 8), outside=1),
        polygon(2, corners(16, 2, 21, 8)),
    ),
    # rows of 4: 0110 / 1111 / 0000; stands still until the outside after the last frame
    track("bus", cvat_mask(3, "1, 2, 1, 4, 4", 10, 12, 4, 3), cvat_mask(5, "12", 10, 12, 4, 3, outside=1)),
    # turned by a quarter about (25, 10): 6 wide and 2 high become 2 wide and 6 high
    track("bus", box(4, 22, 9, 28, 11, rotation="90.0")),
    track("truck", '<points frame="0" outside="0" points="1,1"/>'),
)


@pytest.fixture
def cvat_folder(tmp_path):
    folder = tmp_path / "crossing"
    for frame in range(5):
        write_image(folder / "images" / f"frame_{frame:06d}.PNG", shade=frame)
    (folder / "annotations.xml").write_text(cvat("".join(CVAT_TRACKS)))
    return folder


@pytest.mark.parametrize("whole", [True, False])
def test_cvat_tracks(cvat_folder, tmp_path, whole):
    given = cvat_folder if whole else cvat_folder / "annotations.xml"
    dataset, found, left_out = converted("cvat", given, tmp_path / "out")
    assert [x.name for x in dataset.categories] == ["bus", "truck"]
    assert dataset.videos[0].file_names[4] == "crossing/frame_000004.PNG"
    (truck,) = found["crossing"]["truck"]
    assert_masks(truck, [rectangle(2, 3, 8, 9), rectangle(4, 3, 10, 9), rectangle(6, 3, 12, 9), None, None])
    drawn, painted, turned = found["crossing"]["bus"]
    late = rectangle(16, 2, 21, 8)
    assert_masks(drawn, [rectangle(15, 2, 20, 8), None, late, late, late])
    paint = rectangle(11, 12, 13, 13) | rectangle(10, 13, 14, 14)
    assert_masks(painted, [None, None, None, paint, paint])
    assert_masks(turned, [None] * 4 + [rectangle(24, 7, 26, 13)])
    assert left_out == {"shapes that have no area here (points)": 1}


def test_cvat_counts_frames_as_the_task_took_them(cvat_folder, tmp_path):
    meta = "<start_frame>10</start_frame><frame_filter>step=5</frame_filter>"
    text = cvat(track("bus", box(20, 1, 1, 9, 9), box(25, 1, 1, 9, 9, outside=1)), meta=meta)
    (cvat_folder / "annotations.xml").write_text(text)
    _, found, _ = converted("cvat", cvat_folder, tmp_path / "out")
    assert_masks(found["crossing"]["bus"][0], [None, None, rectangle(1, 1, 9, 9), None, None])


def test_cvat_turns_boxes_clockwise(cvat_folder, tmp_path):
    text = cvat(track("bus", box(0, 8, 7, 22, 13, rotation="30.0")))
    (cvat_folder / "annotations.xml").write_text(text)
    _, found, _ = converted("cvat", cvat_folder, tmp_path / "out")
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    back = ((x - 15) + 1j * (y - 10)) * np.exp(-1j * np.pi / 6)  # into the box's own axes; y points down
    distance = np.maximum(abs(back.real) - 7, abs(back.imag) - 3)
    mask = found["crossing"]["bus"][0][0]
    assert mask[distance < -0.75].all() and not mask[distance > 0.75].any()
    assert (distance < -0.75).sum() > 40


ENTITIES = '<!DOCTYPE annotations [<!ENTITY a "b">]>'


@pytest.mark.parametrize(
    "text, match",
    [
        (cvat("", head=ENTITIES), "has a document type"),
        (cvat("")[:-5], "is not sound XML"),
        (cvat('<image id="0"/>'), "export the task as `CVAT for video 1.1`"),
        ("<other/>", "export the task as `CVAT for video 1.1`"),
        (cvat("", size=4), "is of 4 frames but there are 5 images"),
        (cvat("", size="x"), "its <meta> cannot be read"),
        (cvat(track("bus", box(9, 1, 1, 2, 2))), "frame 9 has no image"),
        (cvat(track("bus", box(1, 1, 1, 2, 2), box(1, 1, 1, 2, 2))), "frame 1 has two shapes"),
        (cvat(track("bus", box("x", 1, 1, 2, 2))), "a <box> has frame='x'"),
        (cvat(track("bus", box(1, "a", 1, 2, 2))), "the points of a <box> of frame 1 cannot be read"),
        (cvat(track("bus", polygon(1, [(1, 1), (2, 2)]))), "<polygon> of frame 1: .* polygon"),
        (
            cvat(track("bus", polygon(0, corners(1, 1, 5, 5)), polygon(2, corners(1, 1, 5, 5)[:3]))),
            "between frames 0 and 2 a <polygon> changes its points",
        ),
        (cvat(track("bus", cvat_mask(1, "1, 2", 1, 1, 2, 2))), "the <mask> of frame 1 cannot be read"),
        (cvat(track("bus", cvat_mask(1, "0, 4", 29, 1, 2, 2))), "the <mask> of frame 1 cannot be read"),
        (
            cvat('<track id="0" label="a" task_id="1"/><track id="1" label="a" task_id="2"/>'),
            "holds several tasks",
        ),
    ],
)
def test_bad_cvat_is_one_line(cvat_folder, tmp_path, text, match):
    (cvat_folder / "annotations.xml").write_text(text)
    with pytest.raises(UserError, match=match) as caught:
        convert("cvat", cvat_folder, tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    assert_nothing_left(tmp_path)


# The command and the writer


def test_command(youtube_vos, tmp_path, capsys):
    out = tmp_path / "out"
    command.main(["--from", "youtube-vos", "--input", str(youtube_vos), "--output", str(out), "--link"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "left out: 5 frames without a palette PNG, so not labelled"
    assert printed[-1] == str(out / "instances.json")
    assert (out / "JPEGImages" / "cafe" / "00000.jpg").is_symlink()


def test_bad_requests_are_one_line(youtube_vos, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "list.txt").write_text("cafe\nother\n")
    (tmp_path / "empty").mkdir()
    for arguments, options, match in [
        (("davis", youtube_vos, tmp_path / "full"), {}, "exists; remove it"),
        (("davis", youtube_vos, tmp_path / "out"), {"frames": 2}, "--frames: not for --from davis"),
        (("coco", youtube_vos / "meta.json", tmp_path / "out"), {}, "--images: --from coco needs it"),
        (("davis", youtube_vos, tmp_path / "out"), {"videos": tmp_path / "list.txt"}, "other is not among"),
        (("davis", youtube_vos, tmp_path / "out"), {"videos": tmp_path / "none.txt"}, "cannot be read"),
        (("labelme", tmp_path / "empty", tmp_path / "out"), {}, "nothing to convert"),
        (("mots", tmp_path / "empty", tmp_path / "out"), {}, "check --input"),
        (("cvat", tmp_path / "empty", tmp_path / "out"), {}, "cannot be read"),
    ]:
        with pytest.raises(UserError, match=match) as caught:
            convert(*arguments, **options)
        assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file"]


def test_order_is_as_people_count():
    names = ["f10.jpg", "f9.jpg", "a", "f09.jpg", "f2_b", "f2_a", "10", "9", ""]
    assert in_order(names) == ["", "9", "10", "a", "f2_a", "f2_b", "f09.jpg", "f9.jpg", "f10.jpg"]
