"""Inputs of benchmarks/tracking.py: detections, or labels instead of them, with RoI features."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from masktrack_jax.data.vis import Video, VisDataset
from masktrack_jax.inference.frames import FrameDetections
from masktrack_jax.inference.load import build_segmenter
from masktrack_jax.inference.split import read_frames
from masktrack_jax.models import track_head
from masktrack_jax.models.masktrack_rcnn import MaskTrackRCNN, build_model
from masktrack_jax.video.images import pad_image

if TYPE_CHECKING:
    from benchmarks.tracking import Detector

DetectedVideo = tuple[int, list[FrameDetections]]  # video id, frames


class RoIFeatures(nn.Module):
    """A track head that returns the RoI features (M, 7, 7, C) as embeddings (M, F), for later heads."""

    features: int
    dtype: Any = jnp.float32

    def __call__(self, roi: jax.Array) -> jax.Array:
        return roi.reshape(len(roi), self.features)


def detect_split(detector: "Detector", dataset: VisDataset) -> dict[str, list[DetectedVideo]]:
    """Return the "detections" and the "labels" of a split; embeddings are RoI features (n, F)."""
    config = detector.config.copy_and_resolve_references()
    config.model.track_head.update({"kind": "features", "features": 49 * config.model.fpn.channels})
    track_head.HEADS["features"] = RoIFeatures
    model = build_model(config, len(detector.categories))
    detect = jax.jit(lambda *arrays: model.apply(*arrays, method="detect")._asdict())
    pool = jax.jit(functools.partial(model.apply, method=_pool))
    segmenter = build_segmenter(detector.config, detector.categories, detector.variables)
    segmenter.predict = functools.partial(detect, detector.variables)
    inputs: dict[str, list[DetectedVideo]] = {"detections": [], "labels": []}
    for video in tqdm(dataset.videos, "detect", unit="video", disable=None):
        frames = list(read_frames(dataset, video))
        found = [_small(frame.encoded()) for frame in segmenter.detect(frames)]
        inputs["detections"].append((video.id, found))
        pool_boxes = functools.partial(pool, detector.variables)
        inputs["labels"].append((video.id, label_detections(dataset, video, frames, pool_boxes)))
    return inputs


def _pool(
    model: MaskTrackRCNN, images: jax.Array, sizes: jax.Array, boxes: jax.Array, valid: jax.Array
) -> jax.Array:
    return model.embed(model.pool(model.features(images, sizes), boxes, valid, 7), len(images))


def _small(frame: FrameDetections) -> FrameDetections:
    return replace(frame, embeddings=frame.embeddings.astype(np.float16))


def label_detections(
    dataset: VisDataset,
    video: Video,
    frames: Sequence[np.ndarray],
    pool: Callable[..., jax.Array],
) -> list[FrameDetections]:
    """Return a video's labels as detections of score 1, in an order independent of identity."""
    objects, rows, found = dataset.objects_of(video), 16, []
    padded = [-(-side // 32) * 32 for side in (video.height, video.width)]
    kinds, size = np.eye(len(dataset.categories), dtype=np.float32), (video.height, video.width)
    for index, frame in enumerate(frames):
        order = np.random.default_rng([video.id, index]).permutation(len(objects))
        seen = sorted((objects[i] for i in order if objects[i].boxes[index]), key=lambda one: one.label)
        boxes = np.zeros((1, rows, 4), np.float32)
        boxes[0, : len(seen)] = np.reshape([one.boxes[index] for one in seen], (-1, 4))
        image, sizes = pad_image(frame, *padded)[None], np.array([size], np.int32)
        features = pool(image, sizes, boxes, np.arange(rows)[None] < len(seen))
        labels, rles = [one.label for one in seen], [one.segmentations[index] for one in seen]
        arrays = (boxes[0, : len(seen)], np.ones(len(seen)), np.array(labels, int), kinds[labels])
        found.append(_small(FrameDetections(size, *arrays, np.asarray(features[0, : len(seen)]), rles=rles)))
    return found
