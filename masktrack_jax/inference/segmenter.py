"""Turn the frames of a video into tracks: detect in batches of frames, associate frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

import numpy as np

from masktrack_jax.inference.frames import FrameDetections, PreparedFrame, Resize, detection_order
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.tracking import options, tracks
from masktrack_jax.tracking.assignment import DROPPED
from masktrack_jax.tracking.association import Tracker
from masktrack_jax.tracking.options import AssociationOptions
from masktrack_jax.tracking.tracks import FrameResult, TrackOptions, TrackRecord, VideoTracks

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Outputs(TypedDict):
    """The outputs of a detector for a batch of B frames with D padded detections each; see `valid`.

    boxes (B, D, 4) in pixels of the resized frames; scores (B, D); labels (B, D); probabilities (B, D, K) of
    the classes; valid (B, D); masks (B, D, m, m), probabilities over the box; embeddings (B, D, E); cut (B,):
    whether only the best D of more detections were kept.
    """

    boxes: ArrayLike
    scores: ArrayLike
    labels: ArrayLike
    probabilities: ArrayLike
    valid: ArrayLike
    masks: ArrayLike
    embeddings: ArrayLike
    cut: ArrayLike


class Predict(Protocol):
    """A jitted detector with bound parameters: images (B, H, W, 3) uint8, sizes (B, 2) int32 h, w."""

    def __call__(self, images: np.ndarray, image_sizes: np.ndarray, /) -> Outputs: ...


class VideoSegmenter:
    """Segments and tracks the objects of videos, one video at a time, in constant memory.

    predict: the detector. It is called with one batch size and the sizes of the buckets, so it compiles once
        for each bucket in use. `predict` and `resize` may be None if detections are only associated.
    categories: (id, name) of each label.
    resize: how frames are resized and padded.
    frames_per_call: the batch size; `step` uses 1 instead.
    association, tracks: options of the tracking; the default is the paper's.
    pixel_boxes: scale boxes and paste masks by whole pixels, as the authors do.
    order_when_cut: see `detection_order`.
    """

    def __init__(
        self,
        predict: Predict | None,
        categories: Iterable[tuple[int, str]],
        *,
        resize: Resize | None = None,
        frames_per_call: int = 4,
        association: AssociationOptions = options.DEFAULT,
        tracks: TrackOptions = tracks.DEFAULT,
        pixel_boxes: bool = False,
        order_when_cut: str = "class",
    ) -> None:
        self.predict, self.resize = predict, resize
        self.categories = list(categories)
        self.frames_per_call = frames_per_call
        self.pixel_boxes, self.order_when_cut = pixel_boxes, order_when_cut
        self.tracks = tracks
        self._tracker = Tracker(association)
        self.reset()

    @property
    def category_ids(self) -> list[int]:
        """The data set's category id of each label."""
        return [category_id for category_id, _ in self.categories]

    @property
    def names(self) -> list[str]:
        """The name of each label."""
        return [name for _, name in self.categories]

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that the results depend on, except `predict`, as a dict for JSON."""
        names = ("frames_per_call", "pixel_boxes", "order_when_cut")
        return {
            "categories": self.categories,
            **(asdict(self.resize) if self.resize else {}),
            **{name: getattr(self, name) for name in names},
            "association": asdict(self._tracker.options),
            "tracks": asdict(self.tracks),
        }

    def reset(self, state: Mapping[str, np.ndarray] | None = None) -> None:
        """Start a new video: the next frame has index 0 and all its objects are new.

        With a `state`, resume the video at the frame where `state()` returned it.
        """
        self._tracker.reset()
        self._index = 0
        if state is not None:
            self._index = int(state["index"])
            self._tracker.restore(state)

    def state(self) -> dict[str, np.ndarray]:
        """Return the state after the latest result, as {name: array}, for `reset`."""
        return {"index": np.array(self._index), **self._tracker.state()}

    def segment(self, frames: Iterable[np.ndarray], video_id: int | str = 1) -> list[TrackRecord]:
        """Return the tracks of a whole video."""
        return self.finish(self.stream(frames), video_id)

    def finish(self, results: Iterable[FrameResult], video_id: int | str = 1) -> list[TrackRecord]:
        """Return the tracks of a video from the results of its frames."""
        collected = VideoTracks(self.tracks)
        for result in results:
            collected.add(result)
        return collected.finish(video_id, self.category_ids)

    def stream(
        self, frames: Iterable[np.ndarray], state: Mapping[str, np.ndarray] | None = None
    ) -> Iterator[FrameResult]:
        """Yield the result of each frame of a new video, about two batches behind the frames read.

        frames: as for `detect`; with a `state`, the remaining frames of its video. If the state follows a
        multiple of `frames_per_call` frames, the batches and the results equal those of an uninterrupted run.
        """
        return self.associate(self.detect(frames), state)

    def associate(
        self, detections: Iterable[FrameDetections], state: Mapping[str, np.ndarray] | None = None
    ) -> Iterator[FrameResult]:
        """Yield the result of each frame of a new video, or of the rest of the video of a `state`."""
        self.reset(state)
        for frame in detections:
            yield self._track(frame)

    def detect(self, frames: Iterable[np.ndarray]) -> Iterator[FrameDetections]:
        """Yield the detections of each frame, about two batches behind the frames read.

        frames: (H, W, 3) uint8 RGB; they may differ in size. While the device computes a batch, the host
        finishes the previous batch and prepares the next one, since JAX dispatches asynchronously.
        """
        in_flight = None
        for batch in self._batches(frames):
            dispatched = self._dispatch(batch, self.frames_per_call)
            if in_flight is not None:
                yield from self._finish(*in_flight)
            in_flight = dispatched
        if in_flight is not None:
            yield from self._finish(*in_flight)

    def step(self, frame: np.ndarray) -> FrameResult:
        """Return the result of the next frame of a live source immediately; `reset` starts another video.

        Batches of one frame need one more compiled program for each bucket.
        """
        (detections,) = self._finish(*self._dispatch([self._prepare(frame, self._index)], 1))
        return self._track(detections)

    def _batches(self, frames: Iterable[np.ndarray]) -> Iterator[list[PreparedFrame]]:
        """Yield lists of up to `frames_per_call` prepared frames in order, each list of a single bucket.

        A batch ends after every multiple of `frames_per_call` frames, so that a video can be resumed there.
        """
        batch: list[PreparedFrame] = []
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

    def _prepare(self, frame: np.ndarray, index: int) -> PreparedFrame:
        frame = np.asarray(frame)
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
            raise UserError(
                f"frame {index}: {frame.dtype} of shape {frame.shape}; expected (height, width, 3) uint8 RGB"
            )
        if self.resize is None:
            raise ValueError("a VideoSegmenter without `resize` can only associate")
        return self.resize.prepare(frame)

    def _dispatch(self, batch: list[PreparedFrame], size: int) -> tuple[list[PreparedFrame], Outputs]:
        """Start the detector on a batch padded to `size` with blank frames; return (batch, outputs)."""
        if self.predict is None:
            raise ValueError("a VideoSegmenter without `predict` can only associate")
        images = np.zeros(
            (size, *batch[0].image.shape), np.uint8
        )  # a new array, since JAX may read it later without a copy
        sizes = np.empty((size, 2), np.int32)
        for i in range(size):
            sizes[i] = batch[min(i, len(batch) - 1)].resized
        for i, prepared in enumerate(batch):
            images[i] = prepared.image
        return batch, self.predict(images, sizes)

    def _finish(self, batch: list[PreparedFrame], outputs: Outputs) -> Iterator[FrameDetections]:
        """Wait for the device and yield the detections of a dispatched batch."""
        arrays = {name: np.asarray(value) for name, value in outputs.items()}
        for i, prepared in enumerate(batch):
            yield self._at_frame_size(prepared, {name: value[i] for name, value in arrays.items()})

    def _at_frame_size(self, prepared: PreparedFrame, outputs: dict[str, np.ndarray]) -> FrameDetections:
        """Return the detections of one frame from the detector's outputs for it."""
        order = detection_order(
            outputs["scores"],
            outputs["labels"],
            outputs["valid"],
            outputs["cut"],
            self.order_when_cut,
        )
        boxes = prepared.at_frame_size(outputs["boxes"][order], self.pixel_boxes)
        return FrameDetections(
            size=prepared.original,
            boxes=boxes,
            scores=outputs["scores"][order],
            labels=outputs["labels"][order],
            probabilities=outputs["probabilities"][order],
            embeddings=outputs["embeddings"][order],
            masks=outputs["masks"][order],
        )

    def _track(self, frame: FrameDetections) -> FrameResult:
        """Associate the next frame."""
        ids = self._tracker.update(frame.to_associate)
        kept = frame.rows(ids != DROPPED).encoded(self.pixel_boxes)
        assert kept.rles is not None  # of `encoded`
        result = FrameResult(
            index=self._index,
            boxes=kept.boxes,
            scores=kept.scores,
            labels=kept.labels,
            probabilities=kept.probabilities,
            track_ids=ids[ids != DROPPED],
            rles=kept.rles,
        )
        self._index += 1
        return result
