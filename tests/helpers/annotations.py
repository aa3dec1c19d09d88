"""A small annotations file with one object, and its mask in every form of a segmentation."""

import json

import numpy as np
from pycocotools import mask as coco_mask

from masktrack_jax.data.vis import read_vis

HEIGHT, WIDTH = 20, 30
POLYGON = [[6, 4, 17, 4, 17, 12, 6, 12]]  # of `object_mask`


def object_mask():
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[4:12, 6:17] = 1
    return mask


def uncompressed(mask):
    """Run lengths of a mask in column order, counted here without pycocotools."""
    counts, value, run = [], 0, 0
    for pixel in mask.flatten(order="F").tolist():
        if pixel != value:
            counts, value, run = [*counts, run], pixel, 0
        run += 1
    return {"size": list(mask.shape), "counts": [*counts, run]}


def compressed(mask):
    rle = coco_mask.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def annotations():
    """Two videos of two frames; video 7 holds an object seen in the first frame only."""
    videos = [
        {"id": i, "height": HEIGHT, "width": WIDTH, "length": 2, "file_names": [f"v{i}/0.jpg", f"v{i}/1.jpg"]}
        for i in (7, 3)
    ]
    annotation = {"id": 1, "video_id": 7, "category_id": 9, "iscrowd": 0, "areas": [88, None]}
    annotation |= {"segmentations": [uncompressed(object_mask()), None], "bboxes": [[6, 4, 11, 8], None]}
    categories = [{"id": 9, "name": "seal"}, {"id": 4, "name": "ape"}]
    return {"categories": categories, "videos": videos, "annotations": [annotation]}


def read(tmp_path, content):
    path = tmp_path / "instances.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_vis(path)


def set_to(*keys, to):
    """A change of annotations: the entry at `keys` becomes `to`."""

    def change(content):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = to

    return change


def without(*keys):
    """A change of annotations: the entry at `keys` goes."""

    def change(content):
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


def with_polygons():
    """`annotations` with the mask as polygons."""
    content = annotations()
    content["annotations"][0]["segmentations"][0] = POLYGON
    return content


def cocovid(content):
    """The same annotations as mmtracking's converter writes them: a record a frame and a box."""
    out = {"categories": content["categories"], "videos": [], "images": [], "annotations": []}
    for video in content["videos"]:
        size = {"height": video["height"], "width": video["width"]}
        out["videos"].append({"id": video["id"], "name": video["file_names"][0].split("/")[0], **size})
        for frame, name in enumerate(video["file_names"]):
            image = {"id": len(out["images"]) + 1, "video_id": video["id"], "frame_id": frame}
            out["images"].append(image | size | {"file_name": name})
            for found in content["annotations"]:
                if found["video_id"] == video["id"] and found["bboxes"][frame]:
                    box = {"id": len(out["annotations"]) + 1, "image_id": image["id"], "instance_id": 5}
                    box |= {"video_id": video["id"], "category_id": found["category_id"], "iscrowd": 0}
                    box |= {"bbox": found["bboxes"][frame], "area": found["areas"][frame]}
                    out["annotations"].append(box | {"segmentation": found["segmentations"][frame]})
    return out
