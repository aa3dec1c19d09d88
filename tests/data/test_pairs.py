"""Training pairs: transforms keep frames, boxes and masks consistent, and matches name the same object.

The oracle is the annotations themselves, moved by hand.
"""

import dataclasses
import logging

import jax
import numpy as np
import pytest

from masktrack_jax.data.generate.options import GeneratorOptions
from masktrack_jax.data.generate.write import generate
from masktrack_jax.data.options import PairOptions
from masktrack_jax.data.pairs import (
    FrameCache,
    PairLoader,
    candidates,
    video_bucket,
    warn_of_crowded_frames,
)
from masktrack_jax.data.transforms import (
    Transform,
    draw_transform,
    transform_boxes,
    transform_image,
    transform_mask,
)
from masktrack_jax.data.vis import read_vis
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.video.images import read_image

OPTIONS = PairOptions(scales=[(160, 96)], buckets=[(96, 160)], max_objects=6)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs") / "shapes"
    options = GeneratorOptions(
        videos=4, seed=5, height=72, width=100, frames=10, leave=1.0, min_objects=3, max_objects=5
    )
    return read_vis(generate(folder, options))


def _unpack(masks, width):
    return np.unpackbits(masks, axis=-1, count=width)


def _box_of(mask):
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_flip_twice_is_identity():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (10, 14, 3), dtype=np.uint8)
    boxes = np.array([[1, 2, 5, 6], [0, 0, 14, 10]], np.float32)
    flip = Transform(14, 10, True, False, False, None)
    once = transform_image(image, flip)
    np.testing.assert_array_equal(once[:, 3], image[:, 10])
    np.testing.assert_array_equal(transform_image(once, flip), image)
    np.testing.assert_array_equal(transform_mask(transform_mask(image[..., 0], flip), flip), image[..., 0])
    np.testing.assert_array_equal(transform_boxes(boxes, 10, 14, flip), [[9, 2, 13, 6], [0, 0, 14, 10]])
    np.testing.assert_array_equal(transform_boxes(transform_boxes(boxes, 10, 14, flip), 10, 14, flip), boxes)


def slow_pixel_boxes(boxes, height, width, factor, flip):
    """mmdet before version 2, on first and last pixels: scaled by one factor, flipped, clipped."""
    new_height, new_width = int(height * factor + 0.5), int(width * factor + 0.5)
    moved = []
    for x1, y1, x2, y2 in boxes:
        x1, y1, x2, y2 = (value * factor for value in (x1, y1, x2, y2))
        if flip:
            x1, x2 = new_width - x2 - 1, new_width - x1 - 1
        x1, x2 = (min(max(x, 0), new_width - 1) for x in (x1, x2))
        y1, y2 = (min(max(y, 0), new_height - 1) for y in (y1, y2))
        moved.append([x1, y1, x2, y2])
    return np.array(moved)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("height, width", [(720, 1280), (250, 333)])
def test_pixel_boxes_scale_their_first_and_last_pixels(height, width, flip):
    boxes = np.array([[10, 20, 99, 79], [0, 0, width - 1, height - 1], [5, 5, 5, 5]], np.float64)
    factor = min(640 / max(height, width), 360 / min(height, width))
    transform = Transform(640, 360, flip, False, True, None)
    got = transform_boxes(np.add(boxes, [0, 0, 1, 1]), height, width, transform) - np.array([0, 0, 1, 1])
    np.testing.assert_allclose(got, slow_pixel_boxes(boxes, height, width, factor, flip), atol=1e-3)


def test_float_resize_keeps_what_lies_between_two_values(dataset):
    options = dataclasses.replace(OPTIONS, float_resize=True, scales=[(64, 40)], flip=0.0)
    video_index, frame = candidates(dataset)[0]
    sample = PairLoader(dataset, options)(video_index, frame, np.random.default_rng(0))
    rounded = PairLoader(dataset, dataclasses.replace(options, float_resize=False))
    other = rounded(video_index, frame, np.random.default_rng(0))
    assert sample.key.image.dtype == sample.reference.image.dtype == np.float32
    difference = np.abs(sample.key.image - other.key.image)
    assert 0.1 < difference.max() <= 1
    with pytest.raises(UserError, match=r"data\.jitter"):
        dataclasses.replace(options, jitter=0.1)


def test_jitter_is_off_by_default_and_mild_when_on():
    image = np.full((4, 4, 3), 100, np.uint8)
    rng = np.random.default_rng(0)
    assert draw_transform(rng, OPTIONS).light is None
    draws = [draw_transform(rng, dataclasses.replace(OPTIONS, jitter=0.1)) for _ in range(50)]
    values = np.array([transform_image(image, draw)[0, 0] for draw in draws])
    assert len(np.unique(values, axis=0)) > 40 and np.abs(values.astype(int) - 100).max() <= 45


@pytest.mark.parametrize("scale", [(160, 96), (100, 72), (64, 40)])
def test_boxes_stay_tight_to_masks(dataset, scale):
    options = dataclasses.replace(OPTIONS, scales=[scale])
    loader = PairLoader(dataset, options)
    flipped = 0
    for place, (video_index, frame) in enumerate(candidates(dataset)):
        key, reference, provenance = loader(video_index, frame, np.random.default_rng(place))
        masks = _unpack(key.targets.masks, 160)
        height, width = key.image_size
        assert not key.image[height:].any() and not key.image[:, width:].any()
        assert not masks[:, height:].any() and not masks[:, :, width:].any()
        assert not masks[~key.valid].any() and not key.boxes[~key.valid].any()
        assert masks.sum(axis=0).max() <= 1
        for mask, box in zip(masks[key.valid], key.boxes[key.valid]):
            if scale[0] >= 100:
                assert np.abs(_box_of(mask) - box).max() <= 1
            elif mask.any():  # smaller by nearest pixel: thin tips may be lost, nothing is gained
                assert (np.array([1, 1, -1, -1]) * (box - _box_of(mask)) <= 1).all()
        video = dataset.videos[video_index]
        plain = Transform(*scale, False, False, False, None)
        image = transform_image(read_image(dataset.frame_path(video, frame)), plain)
        seen = key.image[:height, :width]
        if not np.array_equal(seen, image):
            np.testing.assert_array_equal(seen, image[:, ::-1])
            flipped += 1
        other = transform_image(read_image(dataset.frame_path(video, int(provenance.reference_frame))), plain)
        is_flipped = not np.array_equal(seen, image)
        reference_seen = reference.image[:height, :width]
        np.testing.assert_array_equal(reference_seen, other[:, ::-1] if is_flipped else other)
    assert 0.25 < flipped / len(candidates(dataset)) < 0.75


def test_matches_name_the_same_object(dataset):
    loader = PairLoader(dataset, dataclasses.replace(OPTIONS, flip=0.0, scales=[(100, 72)]))
    absent = 0
    for place, (video_index, frame) in enumerate(candidates(dataset)):
        key, reference, provenance = loader(video_index, frame, np.random.default_rng(place))
        reference_frame = int(provenance.reference_frame)
        objects = dataset.objects_of(dataset.videos[video_index])
        columns = (key.boxes, key.targets.labels, key.targets.matches)
        for box, label, match in zip(*(column[key.valid] for column in columns)):
            (found,) = [o for o in objects if o.boxes[frame] and np.allclose(o.boxes[frame], box)]
            assert found.label == label
            if match == 0:
                assert found.boxes[reference_frame] is None
                absent += 1
            else:
                assert reference.valid[match - 1]
                np.testing.assert_allclose(reference.boxes[match - 1], found.boxes[reference_frame])
    assert absent > 0


def reference_drawn(loader, seed):
    """The reference frame of frame 5 of the first video."""
    return int(loader(0, 5, np.random.default_rng(seed)).provenance.reference_frame)


def test_reference_is_another_frame_within_the_gap(dataset):
    loader = PairLoader(dataset, dataclasses.replace(OPTIONS, max_gap=2))
    drawn = {reference_drawn(loader, seed) for seed in range(60)}
    assert drawn == {3, 4, 6, 7}
    anywhere = PairLoader(dataset, dataclasses.replace(OPTIONS, max_gap=0))
    drawn = {reference_drawn(anywhere, seed) for seed in range(200)}
    assert drawn == set(range(dataset.videos[0].length)) - {5}
    alone = PairLoader(dataset, OPTIONS)
    alone.__dict__["_frames_of"] = {dataset.videos[0].id: [5]}  # no other frame has an object
    key, _, provenance = alone(0, 5, np.random.default_rng(0))
    assert provenance.reference_frame == 5
    np.testing.assert_array_equal(key.targets.matches[key.valid], 1 + np.arange(key.valid.sum()))


def test_largest_objects_are_kept_and_the_loss_is_logged(dataset, caplog):
    options = dataclasses.replace(OPTIONS, max_objects=2, flip=0.0, scales=[(100, 72)])
    with caplog.at_level(logging.WARNING):
        crowded = warn_of_crowded_frames(dataset, options)
    assert crowded > 0 and len(caplog.records) == 1 and "data.max_objects=2" in caplog.text
    sample = PairLoader(dataset, options)(0, 0, np.random.default_rng(0))
    areas = [
        (b[2] - b[0]) * (b[3] - b[1])
        for b in (found.boxes[0] for found in dataset.objects_of(dataset.videos[0]))
        if b is not None
    ]
    kept = [(b[2] - b[0]) * (b[3] - b[1]) for b in sample.key.boxes]
    np.testing.assert_allclose(sorted(kept), sorted(areas)[-2:])


def test_crowds_are_left_out(dataset):
    video = dataset.videos[0]
    crowds = tuple(dataclasses.replace(found, iscrowd=True) for found in dataset.objects_of(video))
    changed = dataclasses.replace(dataset, objects=dataset.objects | {video.id: crowds})
    assert 0 not in candidates(changed)[:, 0]
    with pytest.raises(UserError, match="nothing to train on"):
        candidates(dataclasses.replace(dataset, objects={}))


def test_bucket_holds_every_scale(dataset):
    video = dataset.videos[0]  # 72 × 100
    options = dataclasses.replace(OPTIONS, scales=[(100, 72), (160, 96)], buckets=[(96, 128), (96, 160)])
    assert video_bucket(video, options) == (96, 160)
    with pytest.raises(UserError, match=r"data\.buckets"):
        video_bucket(video, dataclasses.replace(options, buckets=[(64, 64)]))


def test_cache_gives_the_same_frames_and_keeps_to_its_size(dataset):
    rows = candidates(dataset)
    plain, cached = (PairLoader(dataset, dataclasses.replace(OPTIONS, cache_mb=mb)) for mb in (0, 64))
    for _ in range(2):
        for place, (video_index, frame) in enumerate(rows[:6]):
            left, right = (one(video_index, frame, np.random.default_rng(place)) for one in (plain, cached))
            assert all(map(np.array_equal, jax.tree.leaves(left), jax.tree.leaves(right)))
    small = FrameCache(1)
    paths = [dataset.frame_path(video, frame) for video in dataset.videos for frame in range(video.length)]
    paths = paths * 2
    assert len(paths) * 72 * 100 * 3 > 2**20
    for path in paths:
        np.testing.assert_array_equal(small.read(path), read_image(path))
    assert small._used <= 2**20 and small._used == sum(image.nbytes for image in small._frames.values())


def test_frame_of_another_size_is_one_line(dataset):
    video = dataclasses.replace(dataset.videos[0], height=70)
    changed = dataclasses.replace(dataset, videos=(video, *dataset.videos[1:]))
    with pytest.raises(UserError, match=r"\.jpg: is 72x100 .* annotations say 70x100"):
        PairLoader(changed, OPTIONS)(0, 0, np.random.default_rng(0))


def test_options_of_a_configuration():
    section = {
        "scales": [[640, 360]],
        "buckets": [[384, 640]],
        "max_objects": 20,
        "train_annotations": "a.json",
    }
    options = PairOptions.from_config(section)
    assert options.scales == ((640, 360),) and options.flip == 0.5
    for change, message in [
        ({"buckets": [[360, 640]]}, r"data\.buckets: .*multiples of 32"),
        ({"scales": [640, 360]}, r"data\.scales"),
        ({"scales": []}, r"data\.scales"),
        ({"scales": [[360, 640]]}, r"data\.scales: .*long edge first"),
        ({"max_objects": 0}, r"data\.max_objects"),
        ({"jitter": -0.5}, r"data\.jitter"),
    ]:
        with pytest.raises(UserError, match=message):
            PairOptions.from_config(section | change)
    with pytest.raises(UserError, match=r"data\.buckets: is missing"):
        PairOptions.from_config({"scales": [[640, 360]], "max_objects": 20})
