"""One small project, objects with a rectangle or nothing in each frame, in every format that is converted.

Each `write_` function writes frames and labels into a folder and returns the arguments of `convert`.
"""

import base64
import io
import json
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from tests.helpers.convert import HEIGHT, WIDTH, corners, rectangle, write_image, write_palette

FRAMES = 3


class Thing(NamedTuple):
    """An object: its category, and x1, y1, x2, y2 or None for each frame."""

    category: str
    places: tuple


@st.composite
def places(draw):
    x1, y1 = draw(st.integers(0, WIDTH - 3)), draw(st.integers(0, HEIGHT - 3))
    return x1, y1, draw(st.integers(x1 + 3, WIDTH)), draw(st.integers(y1 + 3, HEIGHT))


# At least one object is seen, and all are seen somewhere.
PROJECTS = st.lists(
    st.builds(
        Thing,
        st.sampled_from(["car", "pedestrian"]),
        st.tuples(*[st.none() | places()] * FRAMES).filter(any),
    ),
    min_size=1,
    max_size=3,
)


def masks(project):
    """{category: [objects' masks, a list for each]}, in the order of the project."""
    found = {}
    for thing in project:
        drawn = [None if place is None else rectangle(*place) for place in thing.places]
        found.setdefault(thing.category, []).append(drawn)
    return found


def frames(folder, suffix=".jpg"):
    for frame in range(FRAMES):
        if not (folder / f"{frame:05d}{suffix}").exists():
            write_image(folder / f"{frame:05d}{suffix}", shade=40 * frame)


def _seen(project):
    """(number, category, frame, place) of all rectangles; the number is that of the object, from 1."""
    for number, thing in enumerate(project, start=1):
        for frame, place in enumerate(thing.places):
            if place is not None:
                yield number, thing.category, frame, place


def _rle(place):
    return coco_mask.encode(np.asfortranarray(rectangle(*place), np.uint8))["counts"].decode()


def coco_content(project):
    size = {"height": HEIGHT, "width": WIDTH}
    annotations = []
    for number, category, frame, place in _seen(project):
        polygon = [float(x) for corner in corners(*place) for x in corner]
        rle = {"size": [HEIGHT, WIDTH], "counts": _rle(place)}
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": frame,
                "category_id": 1 + (category == "pedestrian"),
                "segmentation": rle if number % 2 else [polygon],
                "iscrowd": 0,
                "attributes": {"track_id": number},
            }
        )
    return {
        "images": [{"id": frame, "file_name": f"{frame:05d}.jpg"} | size for frame in range(FRAMES)],
        "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "pedestrian"}],
        "annotations": annotations,
    }


def write_coco(folder, project):
    frames(folder)
    (folder / "labels.json").write_text(json.dumps(coco_content(project)))
    return {"kind": "coco", "inputs": folder / "labels.json", "images": folder}


def labelme_content(project, frame):
    shapes = []
    for number, category, seen, place in _seen(project):
        x1, y1, x2, y2 = place
        kind = ("polygon", "rectangle", "mask")[number % 3]
        shape = {"label": category, "group_id": number, "shape_type": kind, "points": corners(*place)}
        if kind != "polygon":
            shape["points"] = [[x1, y1], [x2, y2]]
        if kind == "mask":
            png = io.BytesIO()
            Image.new("L", (x2 - x1, y2 - y1), 1).save(png, "png")
            shape["mask"] = base64.b64encode(png.getvalue()).decode()
        shapes += [shape] if seen == frame else []
    size = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
    return {"imagePath": f"{frame:05d}.jpg", "imageData": None, "shapes": shapes} | size


def write_labelme(folder, project):
    frames(folder)
    for frame in range(FRAMES):
        (folder / f"{frame:05d}.json").write_text(json.dumps(labelme_content(project, frame)))
    return {"kind": "labelme", "inputs": folder}


def mots_text(project):
    return "".join(
        f"{frame} {1000 + number} {1 + (category == 'pedestrian')} {HEIGHT} {WIDTH} {_rle(place)}\n"
        for number, category, frame, place in _seen(project)
    )


def write_mots(folder, project):
    frames(folder / "clip")
    (folder / "clip.txt").write_text(mots_text(project))
    return {"kind": "mots", "inputs": folder, "images": folder}


def cvat_text(project):
    tracks = []
    for number, thing in enumerate(project):
        shapes = []
        for frame, place in enumerate(thing.places):
            x1, y1, x2, y2 = place or (0, 0, 1, 1)
            head = f'frame="{frame}" outside="{int(place is None)}"'
            points = ";".join(f"{x}.00,{y}.00" for x, y in corners(x1, y1, x2, y2))
            shapes.append(
                (
                    f'<box {head} xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}"/>',
                    f'<polygon {head} points="{points}"/>',
                    f'<mask {head} left="{x1}" top="{y1}" width="{x2 - x1}" height="{y2 - y1}" '
                    f'rle="0, {(x2 - x1) * (y2 - y1)}"/>',
                )[number % 3]
            )
        tracks.append(f'<track id="{number}" label="{thing.category}">{"".join(shapes)}</track>')
    meta = f"<meta><task><size>{FRAMES}</size><start_frame>0</start_frame></task></meta>"
    return f"<annotations>{meta}{''.join(tracks)}</annotations>"


def write_cvat(folder, project):
    frames(folder / "images")
    (folder / "annotations.xml").write_text(cvat_text(project))
    return {"kind": "cvat", "inputs": folder}


def palette_numbers(project):
    """The object numbers of each frame; later objects hide earlier ones."""
    drawn = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    for number, _, frame, place in _seen(project):
        drawn[frame][rectangle(*place)] = number
    return drawn


def write_palette_set(folder, project):
    frames(folder / "JPEGImages" / "clip")
    for frame, numbers in enumerate(palette_numbers(project)):
        write_palette(folder / "Annotations" / "clip" / f"{frame:05d}.png", numbers)
    names = {str(number): thing.category for number, thing in enumerate(project, start=1)}
    (folder / "categories.json").write_text(json.dumps(names))
    return {"kind": "davis", "inputs": folder, "categories": str(folder / "categories.json")}
