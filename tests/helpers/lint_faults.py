"""A clean data set, and every fault that the linter reports, to be added to it."""

import copy
import json

import numpy as np
from PIL import Image

from tests.helpers.annotations import HEIGHT, WIDTH
from tests.helpers.rle_writer import rle as rle_of

BOX = [6, 4, 11, 8]


def rle(x, y, w, h, height=HEIGHT, width=WIDTH):
    mask = np.zeros((height, width), np.uint8)
    mask[y : y + h, x : x + w] = 1
    return rle_of(mask)


def annotation(number, video_id=1, category_id=1, **more):
    record = {"id": number, "video_id": video_id, "category_id": category_id, "iscrowd": 0}
    record |= {"segmentations": [rle(*BOX), None], "bboxes": [BOX, None], "areas": [88, None]}
    return record | more


def clean():
    videos = [
        {"id": i, "height": HEIGHT, "width": WIDTH, "length": 2, "file_names": [f"v{i}/0.png", f"v{i}/1.png"]}
        for i in (1, 2)
    ]
    categories = [{"id": 1, "name": "ape"}, {"id": 2, "name": "seal"}]
    polygon = [[6, 4, 17, 4, 17, 12, 6, 12]]
    return {
        "categories": categories,
        "videos": videos,
        "annotations": [annotation(1), annotation(2, 2, 2, segmentations=[polygon, None])],
    }


def write(tmp_path, content):
    """A data set on disk: the file and every frame it names."""
    for video in content["videos"]:
        for name in video.get("file_names", ()):
            path = tmp_path / "JPEGImages" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)).save(
                path
            )
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    return path


# name: (change of the clean file, kind of the error, words of its example)
FAULTS = {
    "no videos": (lambda x: x.pop("videos"), "missing lists", "no list of objects `videos`"),
    "no categories": (
        lambda x: x.update(categories={}),
        "missing lists",
        "no list of objects `categories` but an object",
    ),
    "annotations": (
        lambda x: x.update(annotations={"a": 1}),
        "missing lists",
        "no list of objects `annotations` but an object",
    ),
    "no object": (
        lambda x: x["videos"].append(7),
        "records that are not objects",
        "video number 3 is 7, expected an object",
    ),
    "category id": (
        lambda x: x["categories"].append({"id": 1, "name": "x"}),
        "duplicate ids",
        "category 1 appears twice",
    ),
    "video id": (
        lambda x: x["videos"].append(x["videos"][0]),
        "duplicate ids",
        "video 1 appears twice, again as number 3",
    ),
    "text id": (lambda x: x["videos"].append({"id": "7"}), "missing ids", "number 3 has `id` '7' (text)"),
    "no name": (lambda x: x["categories"][0].pop("name"), "categories without a name", "category 1"),
    "same name": (lambda x: x["categories"][0].update(name="seal"), "category names used twice", "1 and 2"),
    "video height": (
        lambda x: x["videos"][0].update(height=0),
        "videos without a size",
        "video 1 has `height` 0",
    ),
    "video width": (
        lambda x: x["videos"][0].update(width=10**9),
        "videos without a size",
        "frames of 20 x 1000000000, more than any camera's",
    ),
    "frames": (lambda x: x["videos"][0].update(file_names=[]), "videos without frames", "video 1"),
    "length": (lambda x: x["videos"][0].update(length=3), "wrong lengths", "`length` 3 but 2 `file_names`"),
    "frame twice": (
        lambda x: x["videos"][0].update(file_names=["v1/0.png", "v2/1.png"]),
        "frames used twice",
        "v2/1.png, also of video 1",
    ),
}


def change(**values):
    return lambda content: content["annotations"][0].update(copy.deepcopy(values))


def drop(key):
    return lambda content: content["annotations"][0].pop(key)


FAULTS |= {
    "no video_id": (drop("video_id"), "missing keys", "annotation 1 has no `video_id`"),
    "no category_id": (drop("category_id"), "missing keys", "annotation 1 has no `category_id`"),
    "no segmentations": (drop("segmentations"), "missing keys", "annotation 1 has no `segmentations`"),
    "unknown video": (change(video_id=9), "unknown ids", "annotation 1 has `video_id` 9, which is not among"),
    "unknown category": (
        change(category_id=9),
        "unknown ids",
        "annotation 1 has `category_id` 9, which is not among",
    ),
    "crowd": (
        change(iscrowd=2),
        "crowd flags other than 0 and 1",
        "annotation 1 has `iscrowd` 2, expected 0 or 1",
    ),
    "segmentations": (change(segmentations=[None]), "wrong lengths", "1 entries in `segmentations`"),
    "bboxes": (change(bboxes=[BOX]), "wrong lengths", "1 entries in `bboxes`"),
    "areas": (change(areas=[88] * 3), "wrong lengths", "3 entries in `areas`"),
    "no list": (change(segmentations="x"), "wrong lengths", "expected a list: its video"),
    "object length": (change(length=5), "wrong lengths", "`length` 5, its video has 2"),
    "object height": (change(height=5), "sizes that disagree", "`height` 5, its video has 20"),
    "mask size": (
        change(segmentations=[rle(*BOX, 21, 30), None]),
        "masks whose size is not their video's",
        "annotation 1, frame 0, is not a mask (RLE of size [21, 30]",
    ),
    "mask cut": (
        change(segmentations=[rle(*BOX) | {"counts": rle(*BOX)["counts"][:-1]}, None]),
        "masks that cannot be read",
        "annotation 1, frame 0, is not a mask (counts is not a complete RLE",
    ),
    "mask kind": (change(segmentations=[5, None]), "masks that cannot be read", "neither RLE"),
    "mask outside": (
        change(segmentations=[[[6, 4, 33, 4, 33, 12]], None]),
        "masks out of the frame",
        "from (6, 4) to (33, 12) in a frame of 30x20",
    ),
    "mask far away": (
        change(segmentations=[[[6, 4, 1e30, 4, 33, 12]], None]),
        "masks that cannot be read",
        "polygon far outside any frame",
    ),
    "empty": (
        change(segmentations=[None, None], bboxes=[None, None], areas=[None, None]),
        "objects without a pixel in any frame",
        "annotation 1",
    ),
    "empty mask": (
        change(segmentations=[rle(0, 0, 0, 0), None], bboxes=[[0, 0, 0, 0], None], areas=[0, None]),
        "objects without a pixel in any frame",
        "annotation 1",
    ),
    "box beside": (
        change(bboxes=[[8, 4, 11, 8], None]),
        "boxes that do not fit their masks",
        "annotation 1, frame 0: box [8, 4, 11, 8], the mask's is [6.0, 4.0, 11.0, 8.0]",
    ),
    "box as corners": (change(bboxes=[[6, 4, 17, 12], None]), "boxes that do not fit their masks", "frame 0"),
    "box outside": (change(bboxes=[[6, 4, 26, 8], None]), "boxes out of the frame", "in a frame of 30x20"),
    "box negative": (
        change(bboxes=[[6, 4, -1, 8], None]),
        "boxes that are not x, y, width, height",
        "with negative size",
    ),
    "box null": (change(bboxes=[None, None]), "boxes that are not x, y, width, height", "frame 0: box null"),
    "box alone": (change(bboxes=[BOX, BOX]), "boxes or areas without a mask", "frame 1: box [6, 4, 11, 8]"),
    "area": (
        change(areas=[99, None]),
        "areas that do not fit their masks",
        "area 99, the mask has 88 pixels",
    ),
    "area null": (change(areas=[None, None]), "areas that are not numbers", "area null"),
    "area alone": (change(areas=[88, 5]), "boxes or areas without a mask", "frame 1: area 5"),
}


def found(findings, kind, words):
    return any(words in example for example in findings.errors.get(kind, (0, []))[1])


def broken_frames(root):
    """Frames of a clean data set, each spoiled in its own way."""
    (root / "v1" / "0.png").unlink()
    whole = (root / "v1" / "1.png").read_bytes()
    (root / "v1" / "1.png").write_bytes(whole[: len(whole) // 2])
    (root / "v2" / "0.png").write_text("no image")
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(root / "v2" / "1.png")
