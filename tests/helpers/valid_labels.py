"""Random valid labels, and the same labels in every form and layout that the readers accept."""

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from tests.helpers.annotations import cocovid, compressed, uncompressed


class Labels(NamedTuple):
    """The content of a file in its plain form, and the masks (T, H, W) of each object."""

    content: dict
    masks: list[np.ndarray]


@st.composite
def valid_labels(draw):
    """One to three videos of up to three frames, each with up to two objects of rectangles and noise."""
    height, width = draw(st.integers(3, 9)), draw(st.integers(3, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    videos, objects, masks = [], [], []
    for video in range(1, draw(st.integers(1, 3)) + 1):
        length = draw(st.integers(1, 3))
        names = [f"v{video}/{frame}.jpg" for frame in range(length)]
        size = {"height": height, "width": width}
        videos.append({"id": video, **size, "length": length, "file_names": names})
        for _ in range(draw(st.integers(0, 2))):
            there = rng.random((length, height, width)) < draw(st.sampled_from([0.1, 0.5, 1.0]))
            there[:, rng.integers(height), rng.integers(width)] = True  # a pixel in every frame
            masks.append(there * (rng.random(length) < 0.8)[:, None, None])
            objects.append(_annotation(len(objects) + 1, video, draw(st.sampled_from([4, 9])), masks[-1]))
    categories = [{"id": 9, "name": "seal"}, {"id": 4, "name": "ape"}]
    return Labels({"categories": categories, "videos": videos, "annotations": objects}, masks)


def _annotation(number, video, category, masks):
    frames = [mask.any() for mask in masks]
    return {
        "id": number,
        "video_id": video,
        "category_id": category,
        "iscrowd": 0,
        "segmentations": [compressed(m.astype(np.uint8)) if seen else None for m, seen in zip(masks, frames)],
        "bboxes": [_box(m) if seen else None for m, seen in zip(masks, frames)],
        "areas": [int(m.sum()) if seen else None for m, seen in zip(masks, frames)],
    }


def _box(mask):
    rows, columns = np.nonzero(mask)
    low = columns.min(), rows.min()
    return [float(v) for v in (*low, columns.max() + 1 - low[0], rows.max() + 1 - low[1])]


def _each(table, change):
    return lambda content: [change(record) for record in content[table]]


def _floats(record):
    record.update({key: float(value) for key, value in record.items() if type(value) is int})


def _empty_lists(record):
    for key in ("segmentations", "bboxes", "areas"):
        record[key] = [[] if value is None else value for value in record[key]]


def _runs(record):
    masks = record["segmentations"]
    record["segmentations"] = [mask and _uncompressed(mask) for mask in masks]


def _uncompressed(rle):
    from masktrack_jax.masks.rle import decode_mask

    return {"size": [float(side) for side in rle["size"]], "counts": uncompressed(decode_mask(rle))["counts"]}


def _pop(*keys):
    def change(record):
        for key in keys:
            del record[key]

    return change


def _backslashes(record):
    record["file_names"] = [name.replace("/", "\\") for name in record["file_names"]]


def _to_cocovid(content):
    boxes = cocovid(content)
    for box, instance in zip(boxes["annotations"], _instances(content)):
        box["instance_id"] = instance
    content.clear()
    content.update(boxes)


def _instances(content):
    """The object of each box in the order in which `cocovid` writes them."""
    for video in content["videos"]:
        for frame in range(video["length"]):
            for found in content["annotations"]:
                if found["video_id"] == video["id"] and found["bboxes"][frame]:
                    yield found["id"]


# Changes of a file that change none of its objects.
FORMS = {
    "plain": lambda content: None,
    "floats": lambda content: [_each(table, _floats)(content) for table in ("videos", "annotations")],
    "empty lists": _each("annotations", _empty_lists),
    "runs": _each("annotations", _runs),
    "no boxes": _each("annotations", _pop("bboxes", "areas")),
    "no crowd": _each("annotations", _pop("iscrowd")),
    "no length": _each("videos", _pop("length")),
    "backslashes": _each("videos", _backslashes),
    "CocoVID": _to_cocovid,
}
