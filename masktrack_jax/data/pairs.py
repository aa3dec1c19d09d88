"""A training sample: a key frame and a reference frame of one video, each with its objects."""

import collections
import functools
import logging
import threading

import numpy as np

from masktrack_jax.data.images import bucket_for, fit_size, pad_image, read_image
from masktrack_jax.data.transforms import draw_transform, transform_boxes, transform_image, transform_mask
from masktrack_jax.masks.rle import decode_mask
from masktrack_jax.runtime.errors import UserError

# Where a sample comes from: for messages, not for the step.
PROVENANCE = ("video_index", "key_frame", "reference_frame", "skipped")


def video_bucket(video, options):
    """The bucket (H, W) of a video: one that holds its frames at every scale, so that it never changes."""
    sizes = [fit_size(video.height, video.width, *scale) for scale in options.scales]
    return bucket_for(max(h for h, _ in sizes), max(w for _, w in sizes), options.buckets)


def candidates(dataset):
    """Every frame with an object that is no crowd: (N, 2) int64 of video index and frame, in order.

    Raises UserError when there is none.
    """
    found = [
        (index, frame)
        for index, video in enumerate(dataset.videos)
        for frame in _labelled_frames(dataset, video)
    ]
    if not found:
        raise UserError(
            f"{dataset.frames_root}: no frame of this data set has a labelled object; nothing to train on"
        )
    return np.array(found, np.int64)


def _labelled_frames(dataset, video):
    objects = [found for found in dataset.objects_of(video) if not found.iscrowd]
    return [frame for frame in range(video.length) if any(found.boxes[frame] for found in objects)]


def _visible(dataset, video, frame, limit=None):
    """The objects seen in a frame, no crowds, in the file's order; of more than `limit` the largest boxes."""
    seen = [
        found for found in dataset.objects_of(video) if not found.iscrowd and found.boxes[frame] is not None
    ]
    if limit is None or len(seen) <= limit:
        return seen
    sizes = [(b[2] - b[0]) * (b[3] - b[1]) for b in (found.boxes[frame] for found in seen)]
    largest = sorted(range(len(seen)), key=lambda i: (-sizes[i], i))[:limit]
    return [seen[i] for i in sorted(largest)]


def warn_of_crowded_frames(dataset, options):
    """Say once how many frames hold more objects than `max_objects`; returns their number."""
    crowded = sum(
        len(_visible(dataset, video, frame)) > options.max_objects
        for video in dataset.videos
        for frame in range(video.length)
    )
    if crowded:
        logging.getLogger(__name__).warning(
            "%d frames hold more than data.max_objects=%d objects; the largest are kept",
            crowded,
            options.max_objects,
        )
    return crowded


class FrameCache:
    """Decoded frames, the latest used first, up to a size in MiB; 0 keeps none. Safe between threads.

    A copy sent to another process starts empty.
    """

    def __init__(self, megabytes):
        self._budget = megabytes * 2**20
        self._used = 0
        self._frames = collections.OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self):
        return FrameCache, (self._budget // 2**20,)

    def read(self, path, read=read_image):
        """`read(path)`, from memory where possible; the array may not be written to."""
        with self._lock:
            if path in self._frames:
                self._frames.move_to_end(path)
                return self._frames[path]
        image = read(path)
        image.setflags(write=False)
        with self._lock:
            if image.nbytes <= self._budget and path not in self._frames:
                self._frames[path] = image
                self._used += image.nbytes
                while self._used > self._budget:
                    self._used -= self._frames.popitem(last=False)[1].nbytes
        return image


class PairLoader:
    """Loads the pair of a key frame: `loader(video_index, key_frame, rng)`."""

    def __init__(self, dataset, options):
        self.dataset, self.options = dataset, options
        self._cache = FrameCache(options.cache_mb)

    def __call__(self, video_index, key_frame, rng):
        """One sample: dict of arrays, padded to the video's bucket (H, W) and to G = max_objects rows.

        image   (H, W, 3) uint8, or float32 with `float_resize`
        image_size   (2,) int32: height and width before padding
        boxes   (G, 4) float32: x1, y1, x2, y2 in pixels of the resized image
        valid   (G,) bool
        labels   (G,) int32
        masks   (G, H, W/8) uint8: 0/1 pixels packed along the width (`np.packbits`)
        matches   (G,) int32: 1 + the object's row in the reference, 0 when it is not there
        reference_image, reference_image_size, reference_boxes, reference_valid   the same of the reference;
        reference_labels, reference_masks, reference_matches   too, where `both_ways`
        video_index, key_frame, reference_frame   int32
        """
        video = self.dataset.videos[video_index]
        transform = draw_transform(rng, self.options)
        reference_frame = self._draw_reference(video, key_frame, rng)
        limit = self.options.max_objects
        objects = _visible(self.dataset, video, key_frame, limit)
        others = _visible(self.dataset, video, reference_frame, limit)
        key = self._view(video, key_frame, transform, objects)
        key |= self._targets(video, key_frame, transform, objects, others)
        reference = self._view(video, reference_frame, transform, others)
        if self.options.both_ways:
            reference |= self._targets(video, reference_frame, transform, others, objects)
        return {
            **key,
            **{f"reference_{name}": array for name, array in reference.items()},
            "video_index": np.int32(video_index),
            "key_frame": np.int32(key_frame),
            "reference_frame": np.int32(reference_frame),
        }

    def _view(self, video, frame, transform, objects):
        """A frame and where its objects are."""
        image, size = self._image(video, frame, video_bucket(video, self.options), transform)
        return {
            "image": image,
            "image_size": size,
            "boxes": self._boxes(video, objects, frame, transform),
            "valid": self._padded([True] * len(objects), np.bool_),
        }

    def _targets(self, video, frame, transform, objects, others):
        """What is to be learnt of a frame's objects; `others` are those of the frame it is compared to."""
        rows = {found.annotation_id: row for row, found in enumerate(others, start=1)}
        bucket = video_bucket(video, self.options)
        return {
            "labels": self._padded([found.label for found in objects], np.int32),
            "masks": self._masks(video, objects, frame, bucket, transform),
            "matches": self._padded([rows.get(found.annotation_id, 0) for found in objects], np.int32),
        }

    @functools.cached_property
    def _frames_of(self):
        """Video id -> its frames with labelled objects."""
        return {video.id: _labelled_frames(self.dataset, video) for video in self.dataset.videos}

    def _draw_reference(self, video, key_frame, rng):
        """Another labelled frame within `max_gap` frames, all alike; the key frame where there is none."""
        farthest = self.options.max_gap or video.length
        near = [f for f in self._frames_of[video.id] if 0 < abs(f - key_frame) <= farthest]
        return near[rng.integers(len(near))] if near else key_frame

    def _image(self, video, frame, bucket, transform):
        path = self.dataset.frame_path(video, frame)
        image = self._cache.read(path, lambda _: self.dataset.read_frame(video, frame))
        image = transform_image(image, transform)
        return pad_image(image, *bucket), np.array(image.shape[:2], np.int32)

    def _boxes(self, video, objects, frame, transform):
        boxes = transform_boxes(
            [found.boxes[frame] for found in objects], video.height, video.width, transform
        )
        return self._padded(boxes, np.float32, (4,))

    def _masks(self, video, objects, frame, bucket, transform):
        height, width = bucket
        masks = np.zeros((self.options.max_objects, height, width // 8), np.uint8)
        for row, found in enumerate(objects):
            mask = transform_mask(decode_mask(found.segmentations[frame]), transform)
            packed = np.packbits(mask, axis=1)
            masks[row, : packed.shape[0], : packed.shape[1]] = packed
        return masks

    def _padded(self, values, dtype, shape=()):
        """`values` followed by zeros: (G, *shape)."""
        array = np.zeros((self.options.max_objects, *shape), dtype)
        array[: len(values)] = np.asarray(values, dtype).reshape(len(values), *shape)
        return array
