"""Small frames and masks for the tests of the converters, and the results of a conversion."""

import numpy as np
from PIL import Image

from masktrack_jax.data.convert.convert import convert
from masktrack_jax.data.lint.dataset import lint
from masktrack_jax.data.vis import read_vis
from masktrack_jax.masks.rle import decode_mask

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
    annotations, _, left_out, _ = convert(kind, input_path, output, **options)
    findings = lint(annotations, output / "JPEGImages")
    assert findings.num_errors == 0, findings.lines()
    dataset = read_vis(annotations)
    found = {}
    for video in dataset.videos:
        objects = found.setdefault(video.name, {})
        for item in dataset.objects_of(video):
            name = dataset.categories[item.label].name
            masks = [None if x is None else decode_mask(x).astype(bool) for x in item.segmentations]
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
