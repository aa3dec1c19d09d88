"""A training sample: a key frame and a reference frame of one video, each with its objects."""

import collections
import functools
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from masktrack_jax.data.batches import Frames, FrameTargets, PairBatch, Provenance
from masktrack_jax.data.options import PairOptions
from masktrack_jax.data.transforms import (
    Transform,
    draw_transform,
    transform_boxes,
    transform_image,
    transform_mask,
)
from masktrack_jax.data.values import Id
from masktrack_jax.data.vis import Video, VisDataset, VisObject
from masktrack_jax.masks.rle import decode_mask
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.video.images import bucket_for, fit_size, pad_image, read_image


def video_bucket(video: Video, options: PairOptions) -> tuple[int, int]:
    """The bucket (height, width) of a video, which fits its frames at every scale."""
    sizes = [fit_size(video.height, video.width, *scale) for scale in options.scales]
    return bucket_for(max(h for h, _ in sizes), max(w for _, w in sizes), options.buckets)


def candidates(dataset: VisDataset) -> np.ndarray:
    """Every frame with an object that is not a crowd: (N, 2) int64 of video index and frame, in order.

    Raises UserError if there is none.
    """
    found = [
        (index, frame)
        for index, video in enumerate(dataset.videos)
        for frame in _labelled_frames(dataset, video)
    ]
    if not found:
        cause = dataset.left_out.summary() or f"none of its {len(dataset.videos)} videos has an object"
        raise UserError(
            f"{dataset.annotations_path}: no frame has a labelled object, so there is nothing to train on: "
            f"{cause}; correct the annotations file"
        )
    return np.array(found, np.int64)


def _labelled_frames(dataset: VisDataset, video: Video) -> list[int]:
    objects = [found for found in dataset.objects_of(video) if not found.iscrowd]
    return [frame for frame in range(video.length) if any(found.boxes[frame] for found in objects)]


def _visible(dataset: VisDataset, video: Video, frame: int, limit: int | None = None) -> list[VisObject]:
    """The objects in a frame, without crowds, in the file's order; `limit` keeps the largest boxes."""
    seen = [
        found for found in dataset.objects_of(video) if not found.iscrowd and found.boxes[frame] is not None
    ]
    if limit is None or len(seen) <= limit:
        return seen
    sizes = [(b[2] - b[0]) * (b[3] - b[1]) for found in seen if (b := found.boxes[frame])]
    largest = sorted(range(len(seen)), key=lambda i: (-sizes[i], i))[:limit]
    return [seen[i] for i in sorted(largest)]


def warn_of_crowded_frames(dataset: VisDataset, options: PairOptions) -> int:
    """Return the number of frames with more than `max_objects` objects, and log it if it is positive."""
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
    """A thread-safe cache of the most recently used decoded frames, up to a size in MiB; 0 disables it.

    A copy sent to another process starts empty.
    """

    def __init__(self, megabytes: int) -> None:
        self._budget = megabytes * 2**20
        self._used = 0
        self._frames: collections.OrderedDict[Path, np.ndarray] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["FrameCache"], tuple[int]]:
        return FrameCache, (self._budget // 2**20,)

    def read(self, path: Path, read: Callable[[Path], np.ndarray] = read_image) -> np.ndarray:
        """Return `read(path)`, from the cache if possible. The array is read-only."""
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

    def __init__(self, dataset: VisDataset, options: PairOptions) -> None:
        self.dataset, self.options = dataset, options
        self._cache = FrameCache(options.cache_mb)

    def __call__(self, video_index: int, key_frame: int, rng: np.random.Generator) -> PairBatch:
        """One pair, padded to the video's bucket and to `max_objects` rows.

        Images are uint8, or float32 with `float_resize`; boxes are float32, integers int32. Reference frames
        have targets only with `both_ways`.
        """
        video = self.dataset.videos[video_index]
        transform = draw_transform(rng, self.options)
        reference_frame = self._draw_reference(video, key_frame, rng)
        limit = self.options.max_objects
        objects = _visible(self.dataset, video, key_frame, limit)
        others = _visible(self.dataset, video, reference_frame, limit)
        key = self._frame(video, key_frame, transform, objects)
        key = key._replace(targets=self._targets(video, key_frame, transform, objects, others))
        reference = self._frame(video, reference_frame, transform, others)
        if self.options.both_ways:
            targets = self._targets(video, reference_frame, transform, others, objects)
            reference = reference._replace(targets=targets)
        numbers = (video_index, key_frame, reference_frame, 0)
        return PairBatch(key, reference, Provenance(*map(np.int32, numbers)))

    def _frame(self, video: Video, frame: int, transform: Transform, objects: Sequence[VisObject]) -> Frames:
        """A frame with the boxes of its objects."""
        image, size = self._image(video, frame, video_bucket(video, self.options), transform)
        return Frames(
            image=image,
            image_size=size,
            boxes=self._boxes(video, objects, frame, transform),
            valid=self._padded([True] * len(objects), np.bool_),
        )

    def _targets(
        self,
        video: Video,
        frame: int,
        transform: Transform,
        objects: Sequence[VisObject],
        others: Sequence[VisObject],
    ) -> FrameTargets:
        """The targets of a frame's `objects`; `others` are the objects of the pair's other frame."""
        rows = {found.annotation_id: row for row, found in enumerate(others, start=1)}
        bucket = video_bucket(video, self.options)
        return FrameTargets(
            labels=self._padded([found.label for found in objects], np.int32),
            masks=self._masks(video, objects, frame, bucket, transform),
            matches=self._padded([rows.get(found.annotation_id, 0) for found in objects], np.int32),
        )

    @functools.cached_property
    def _frames_of(self) -> dict[Id, list[int]]:
        """Video id -> its frames with labelled objects."""
        return {video.id: _labelled_frames(self.dataset, video) for video in self.dataset.videos}

    def _draw_reference(self, video: Video, key_frame: int, rng: np.random.Generator) -> int:
        """Draw another labelled frame within `max_gap`, uniformly; the key frame if there is none."""
        farthest = self.options.max_gap or video.length
        near = [f for f in self._frames_of[video.id] if 0 < abs(f - key_frame) <= farthest]
        return near[rng.integers(len(near))] if near else key_frame

    def _image(
        self, video: Video, frame: int, bucket: tuple[int, int], transform: Transform
    ) -> tuple[np.ndarray, np.ndarray]:
        """The padded image, and its height and width before padding (2,)."""
        path = self.dataset.frame_path(video, frame)
        image = self._cache.read(path, lambda _: self.dataset.read_frame(video, frame))
        image = transform_image(image, transform)
        return pad_image(image, *bucket), np.array(image.shape[:2], np.int32)

    def _boxes(
        self, video: Video, objects: Sequence[VisObject], frame: int, transform: Transform
    ) -> np.ndarray:
        boxes = transform_boxes(
            [found.boxes[frame] for found in objects], video.height, video.width, transform
        )
        return self._padded(boxes, np.float32, (4,))

    def _masks(
        self,
        video: Video,
        objects: Sequence[VisObject],
        frame: int,
        bucket: tuple[int, int],
        transform: Transform,
    ) -> np.ndarray:
        height, width = bucket
        masks = np.zeros((self.options.max_objects, height, width // 8), np.uint8)
        for row, found in enumerate(objects):
            rle = found.segmentations[frame]
            assert rle is not None  # since the object has a box in this frame
            mask = transform_mask(decode_mask(rle), transform)
            packed = np.packbits(mask, axis=1)
            masks[row, : packed.shape[0], : packed.shape[1]] = packed
        return masks

    def _padded(
        self, values: Sequence | np.ndarray, dtype: np.typing.DTypeLike, shape: tuple[int, ...] = ()
    ) -> np.ndarray:
        """`values` followed by zeros: (max_objects, *shape)."""
        array = np.zeros((self.options.max_objects, *shape), dtype)
        array[: len(values)] = np.asarray(values, dtype).reshape(len(values), *shape)
        return array
