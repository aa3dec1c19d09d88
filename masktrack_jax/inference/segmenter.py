"""Frames in, tracks out: the detector on batches of frames, the association frame by frame."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from masktrack_jax.data.images import bucket_for, fit_scale, fit_size, pad_image, resize_image
from masktrack_jax.masks.paste import encode_pasted
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.tracking import association, tracks
from masktrack_jax.tracking.assignment import DROPPED
from masktrack_jax.tracking.association import Tracker
from masktrack_jax.tracking.tracks import VideoTracks


@dataclass(frozen=True)
class FrameDetections:
    """The detections of one frame before association, n of them, in the order it takes them in.

    size: (h, w) of the frame; boxes (n, 4) float32 x1, y1, x2, y2 in its own pixels; scores (n,); labels (n,)
    0…K−1; probabilities (n, K) of the classes; embeddings (n, E); masks (n, m, m): probabilities over the
    box; in their place, once they are `encoded`, rles: n compressed RLEs at the frame's size.
    """

    size: tuple
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    embeddings: np.ndarray
    masks: Any = None
    rles: Any = None

    def encoded(self, pixel_boxes=False):
        """Return the same with RLEs, to be associated many times or kept."""
        if self.rles is not None:
            return self
        rles = encode_pasted(self.masks, self.boxes, *self.size, pixel_boxes)
        return replace(self, masks=None, rles=rles)

    def rows(self, keep):
        """Return the detections `keep` (a boolean mask or indices)."""
        arrays = ("boxes", "scores", "labels", "probabilities", "embeddings", "masks")
        kept = {name: getattr(self, name)[keep] for name in arrays if getattr(self, name) is not None}
        if self.rles is not None:
            kept["rles"] = [self.rles[i] for i in np.arange(len(self.rles))[keep]]
        return replace(self, **kept)


@dataclass(frozen=True)
class FrameResult:
    """The tracked detections of one frame, n of them, in the order of the association.

    boxes (n, 4) float32 x1, y1, x2, y2 in the frame's own pixels; scores (n,); labels (n,) 0…K−1;
    probabilities (n, K) of the classes; track_ids (n,) int64, no track twice (but see
    `AssociationOptions.keep_displaced`); rles: n compressed RLEs at the frame's own size.
    """

    index: int
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    track_ids: np.ndarray
    rles: list


@dataclass(frozen=True)
class _Prepared:
    """A frame as the detector takes it: `image` padded to its bucket, `resized` and `original` (h, w)."""

    image: np.ndarray
    resized: tuple
    original: tuple


class VideoSegmenter:
    """Segments and tracks the objects of videos, one video at a time, in memory that stays flat.

    predict: `predict(images (B, H, W, 3) uint8, image_sizes (B, 2) int32 h, w)` → dict of boxes (B, D, 4)
        in resized pixels, scores (B, D), labels (B, D), probabilities (B, D, K), valid (B, D), masks
        (B, D, m, m) probabilities, embeddings (B, D, E) and cut (B,): there were more, of which these are
        the best D; parameters bound, jitted. It is called with one B and the buckets' sizes only, so it
        compiles once for each bucket in use.
    categories: (id, name) of each label.
    long_edge, short_edge, buckets: the resize rule and the padded (H, W) sizes, as in `data.images`.
    frames_per_call: B; `step` uses 1 instead.
    association, tracks: an `AssociationOptions` and a `TrackOptions`; the paper's by default.
    pixel_boxes: scale boxes and paste masks by whole pixels, as the authors.
    order_when_cut: see `detection_order`.
    """

    def __init__(
        self,
        predict,
        categories,
        *,
        long_edge,
        short_edge,
        buckets,
        frames_per_call=4,
        association=association.DEFAULT,
        tracks=tracks.DEFAULT,
        pixel_boxes=False,
        order_when_cut="class",
    ):
        self.predict = predict
        self.categories = list(categories)
        self.long_edge, self.short_edge, self.buckets = long_edge, short_edge, buckets
        self.frames_per_call = frames_per_call
        self.pixel_boxes, self.order_when_cut = pixel_boxes, order_when_cut
        self.tracks = tracks
        self._tracker = Tracker(association)
        self.reset()

    @property
    def category_ids(self):
        """The data set's category id of each label."""
        return [category_id for category_id, _ in self.categories]

    @property
    def names(self):
        """The name of each label."""
        return [name for _, name in self.categories]

    @property
    def settings(self):
        """All but `predict` that results depend on, as a dict for JSON."""
        names = ("categories", "long_edge", "short_edge", "buckets", "frames_per_call", "pixel_boxes")
        options = {"association": asdict(self._tracker.options), "tracks": asdict(self.tracks)}
        return {name: getattr(self, name) for name in (*names, "order_when_cut")} | options

    def reset(self, state=None):
        """Start a new video: the next frame has index 0 and all its objects are new.

        Or go on with one, after the frames that a `state` was taken after.
        """
        self._tracker.reset()
        self._index = 0
        if state is not None:
            self._index = int(state["index"])
            self._tracker.restore(state)

    def state(self):
        """Return what is known after the latest result, as {name: array} for `reset`."""
        return {"index": np.array(self._index), **self._tracker.state()}

    def segment(self, frames, video_id=1):
        """Return the tracks of a whole video, see `tracking.tracks.VideoTracks.finish`."""
        return self.finish(self.stream(frames), video_id)

    def finish(self, results, video_id=1):
        """Return the tracks of a video's `FrameResult`s."""
        collected = VideoTracks(self.tracks)
        for result in results:
            collected.add(result)
        return collected.finish(video_id, self.category_ids)

    def stream(self, frames, state=None):
        """Yield one `FrameResult` a frame of a new video, about two batches behind the frames taken.

        frames: as for `detect`; with a `state`, those of its video from there on. After a multiple of
        `frames_per_call` frames they go into the same batches as without the break, so results are the same.
        """
        return self.associate(self.detect(frames), state)

    def associate(self, detections, state=None):
        """Yield one `FrameResult` for each `FrameDetections` of a new video, or of one after a `state`."""
        self.reset(state)
        for frame in detections:
            yield self._track(frame)

    def detect(self, frames):
        """Yield one `FrameDetections` a frame, about two batches behind the frames taken.

        frames: an iterable of (H, W, 3) uint8 RGB, which may differ in size. While the device works on a
        batch, the host finishes the one before and prepares the one after: JAX returns before the result is
        there and waits only when it is read.
        """
        in_flight = None
        for batch in self._batches(frames):
            dispatched = self._dispatch(batch, self.frames_per_call)
            if in_flight is not None:
                yield from self._finish(*in_flight)
            in_flight = dispatched
        if in_flight is not None:
            yield from self._finish(*in_flight)

    def step(self, frame):
        """Return the `FrameResult` of a live source's next frame at once; `reset` starts another video.

        Runs batches of one frame, which is one more program to compile for each bucket.
        """
        (detections,) = self._finish(*self._dispatch([self._prepare(frame, self._index)], 1))
        return self._track(detections)

    def _batches(self, frames):
        """Yield lists of up to `frames_per_call` prepared frames in order, each of a single bucket.

        One ends after every multiple of `frames_per_call` frames, so that a video can be taken up there.
        """
        batch = []
        for index, frame in enumerate(frames):
            prepared = self._prepare(frame, index)
            if batch and batch[0].image.shape != prepared.image.shape:
                yield batch
                batch = []
            batch.append(prepared)
            if (index + 1) % self.frames_per_call == 0:
                yield batch
                batch = []
        if batch:
            yield batch

    def _prepare(self, frame, index):
        """Resize a frame and pad it to its bucket."""
        frame = np.asarray(frame)
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
            raise UserError(
                f"frame {index}: {frame.dtype} of shape {frame.shape}; expected (height, width, 3) uint8 RGB"
            )
        height, width = frame.shape[:2]
        resized = fit_size(height, width, self.long_edge, self.short_edge)
        bucket = bucket_for(*resized, self.buckets)
        return _Prepared(pad_image(resize_image(frame, *resized), *bucket), resized, (height, width))

    def _dispatch(self, batch, size):
        """Start the detector on a batch, filled up to `size` with blank frames; return (batch, outputs)."""
        images = np.zeros((size, *batch[0].image.shape), np.uint8)  # new: JAX may read it later, uncopied
        sizes = np.empty((size, 2), np.int32)
        for i in range(size):
            sizes[i] = batch[min(i, len(batch) - 1)].resized
        for i, prepared in enumerate(batch):
            images[i] = prepared.image
        return batch, self.predict(images, sizes)

    def _finish(self, batch, outputs):
        """Yield the detections of a dispatched batch, waiting for the device."""
        outputs = {name: np.asarray(value) for name, value in outputs.items()}
        for i, prepared in enumerate(batch):
            yield self._at_frame_size(prepared, {name: value[i] for name, value in outputs.items()})

    def _at_frame_size(self, prepared, detections):
        """Return the `FrameDetections` of the detector's output for one frame."""
        order = detection_order(
            *(detections[name] for name in ("scores", "labels", "valid", "cut")), self.order_when_cut
        )
        boxes = detections["boxes"][order]
        if self.pixel_boxes:
            scale = fit_scale(*prepared.original, self.long_edge, self.short_edge)
            boxes = pixel_boxes_at_frame_size(boxes, scale)
        else:
            boxes = boxes_at_frame_size(boxes, prepared.resized, prepared.original)
        names = ("scores", "labels", "probabilities", "embeddings", "masks")
        return FrameDetections(prepared.original, boxes, *(detections[name][order] for name in names))

    def _track(self, frame):
        """Return the `FrameResult` of the next `FrameDetections`."""
        ids = self._tracker.update(frame.boxes, frame.scores, frame.labels, frame.embeddings)
        kept = frame.rows(ids != DROPPED).encoded(self.pixel_boxes)
        result = FrameResult(
            self._index,
            *(kept.boxes, kept.scores, kept.labels, kept.probabilities),
            ids[ids != DROPPED],
            kept.rles,
        )
        self._index += 1
        return result


def detection_order(scores, labels, valid, cut, order_when_cut="class"):
    """Return the indices of a frame's valid detections (D,) in the order of the association.

    The greedy association numbers new objects in this order. Grouped by class, best first within a class, as
    in mmtracking, whose detector hands over one list a class. `order_when_cut` "score" is the authors': they
    leave the detections by falling score where there were more than the best D (`cut`).
    """
    chosen = np.flatnonzero(valid)
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
    if order_when_cut == "score" and cut:
        return chosen
    return chosen[np.argsort(labels[chosen], kind="stable")]


def boxes_at_frame_size(boxes, resized, original):
    """Return boxes (n, 4) of a resized (h, w) frame in pixels of the original one, clipped to it, float32.

    Each axis has the factor of its own rounded size, as mmtracking's scale_factor.
    """
    (resized_height, resized_width), (height, width) = resized, original
    factor = np.array([resized_width / width, resized_height / height] * 2, np.float32)
    limit = np.array([width, height] * 2, np.float32)
    return np.clip(np.asarray(boxes, np.float32) / factor, 0, limit)


def pixel_boxes_at_frame_size(boxes, scale):
    """As `boxes_at_frame_size` in the authors' form: first and last pixels over one factor for both axes."""
    last = np.array([0, 0, 1, 1], np.float32)
    return (np.asarray(boxes, np.float32) - last) / np.float32(scale) + last
