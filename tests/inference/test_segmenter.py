"""`VideoSegmenter` with a detector that knows the answer: geometry, batches, order, states."""

import numpy as np
import pytest

from masktrack_jax.inference.segmenter import Outputs, VideoSegmenter
from masktrack_jax.masks.paste import paste_masks
from masktrack_jax.masks.rle import decode_masks
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.tracking.association import AssociationOptions
from masktrack_jax.tracking.tracks import TrackOptions
from tests.helpers.moving_objects import (
    CATEGORIES,
    RESIZE,
    KnownDetector,
    frames_of,
    moving_objects,
    segmenter_of,
)


def test_boxes_masks_and_tracks_come_back_in_the_frames_own_pixels() -> None:
    truth = moving_objects(10)
    segmenter = segmenter_of(truth)
    results = list(segmenter.stream(iter(frames_of(truth))))
    assert [result.index for result in results] == list(range(10))
    assert segmenter.predict.shapes == [(4, 64, 64, 3)] * 3, "the last batch is filled up"
    for result, (size, objects) in zip(results, truth):
        by_class = sorted(objects, key=lambda o: (o[2], -o[1]))
        boxes = np.array([o[0] for o in by_class], np.float32)
        np.testing.assert_allclose(result.boxes, boxes, atol=1e-4)
        np.testing.assert_allclose(result.scores, [o[1] for o in by_class], atol=1e-6)
        assert result.labels.tolist() == [o[2] for o in by_class]
        # Ids count in the tracker's order: class 0 first.
        assert result.track_ids.tolist() == [{1: 0, 0: 1, 2: 2}[o[3]] for o in by_class]
        expected = paste_masks(np.ones((len(boxes), 28, 28)), result.boxes, *size)
        np.testing.assert_array_equal(decode_masks(result.rles, *size), expected)


def test_boxes_are_clipped_to_the_frame() -> None:
    truth = [((90, 150), [([-7, 30, 160, 95], 0.9, 0, 0)])]
    (result,) = segmenter_of(truth).stream(frames_of(truth))
    np.testing.assert_allclose(result.boxes, [[0, 30, 150, 90]], atol=1e-4)


@pytest.mark.parametrize("frames_per_call", [1, 3, 16])
def test_stream_step_and_segment_agree(frames_per_call: int) -> None:
    truth = moving_objects(9)
    frames = frames_of(truth)
    segmenter = segmenter_of(truth, frames_per_call=frames_per_call)
    streamed = list(segmenter.stream(frames))
    segmenter.reset()
    for one, other in zip(streamed, [segmenter.step(frame) for frame in frames]):
        for name in ("index", "boxes", "scores", "labels", "track_ids", "rles"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    tracks = segmenter.segment(frames, video_id=12)
    assert [track["track_id"] for track in tracks] == [0, 1, 2]
    assert [track["category_id"] for track in tracks] == [4, 9, 9]
    for track in tracks:
        assert track["video_id"] == 12
        for result, segmentation in zip(streamed, track["segmentations"], strict=True):
            here = np.flatnonzero(result.track_ids == track["track_id"])
            assert segmentation == (result.rles[here[0]] if len(here) else None)
    assert tracks[1]["score"] == pytest.approx(0.9) and tracks[1]["segmentations"][3] is None


@pytest.mark.parametrize("after", [4, 8, 12])
@pytest.mark.parametrize("memory", ["last", "bank"])
def test_a_video_resumes_from_a_state(after: int, memory: str) -> None:
    """In the same batches. The object that is away when the state is taken is known again."""
    truth = moving_objects(18)
    frames = frames_of(truth)
    options = dict(association=AssociationOptions(memory=memory, frames_retained=10))
    whole = segmenter_of(truth, **options)
    wanted = list(whole.stream(frames))
    results, first = [], segmenter_of(truth, **options)
    for result in first.stream(frames):
        results.append(result)
        if len(results) == after:
            break
    state = first.state()
    second = segmenter_of(truth, **options)
    results += second.stream(frames[after:], state)
    assert first.predict.shapes[: after // 4] + second.predict.shapes == whole.predict.shapes
    for one, other in zip(results, wanted, strict=True):
        for name in ("index", "boxes", "scores", "track_ids", "rles"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert [result.index for result in second.stream(frames)] == list(range(18)), "a new video"
    assert second.settings == first.settings != segmenter_of(truth, pixel_boxes=True).settings


def test_detected_once_and_associated_many_times() -> None:
    truth = moving_objects(8)
    frames = frames_of(truth)
    segmenter = segmenter_of(truth)
    wanted = segmenter.segment(frames, video_id=3)
    raw = list(segmenter.detect(iter(frames)))
    kept = [frame.encoded() for frame in raw]
    assert kept[0].masks is None and kept[0].encoded() is kept[0]
    assert kept[0].probabilities.shape == (3, 2)
    for detections in (raw, kept, kept):
        assert segmenter.finish(segmenter.associate(iter(detections)), video_id=3) == wanted
    assert [result.index for result in segmenter.associate(kept)] == list(range(8))
    options = dict(association=AssociationOptions(new_score=0.85), tracks=TrackOptions("vote"))
    strict = VideoSegmenter(None, CATEGORIES, **options)
    (track,) = strict.finish(strict.associate(kept))
    assert track["segmentations"] == wanted[1]["segmentations"] and track["category_id"] == 9


def test_probabilities_and_boxes_come_with_the_tracks_options() -> None:
    """A label with lower probabilities loses the vote, and a gap is filled."""
    truth = moving_objects(8)
    for t in (4, 5, 6, 7):
        truth[t][1][0] = (truth[t][1][0][0], 0.1, 0, 0)
    (track,) = (
        track
        for track in segmenter_of(
            truth,
            association=AssociationOptions(label_weight=0.0),
            tracks=TrackOptions("vote", "class_mean", fill_gaps=2),
        ).segment(frames_of(truth))
        if track["track_id"] == 1
    )
    assert track["category_id"] == 9 and track["score"] == pytest.approx((0.9 + 0.9) / 6)
    assert all(track["segmentations"])


def test_frames_of_other_sizes_use_their_own_resize_and_bucket() -> None:
    sizes = [(90, 150), (90, 150), (60, 80), (150, 40), (150, 44), (90, 150), (20, 60)]
    truth = [(size, [([2, 3, 18, 17], 0.9, 0, 0)]) for size in sizes]
    segmenter = segmenter_of(truth, frames_per_call=2)
    results = list(segmenter.stream(frames_of(truth)))
    for result, (size, objects) in zip(results, truth, strict=True):
        np.testing.assert_allclose(result.boxes, [objects[0][0]], atol=1e-4)
        assert result.rles[0]["size"] == list(size)
    # A batch ends where the bucket changes, and after every second frame.
    assert [shape[1:3] for shape in segmenter.predict.shapes] == [
        (64, 64), (64, 64), (64, 32), (64, 32), (64, 64), (32, 64),
    ]  # fmt: skip
    assert {shape[0] for shape in segmenter.predict.shapes} == {2}


def test_duplicate_of_a_track_is_left_out() -> None:
    truth = [((90, 150), [([5, 5, 50, 50], 0.9, 1, 0)])] * 2
    truth[1] = (truth[1][0], [*truth[1][1], ([6, 5, 52, 50], 0.3, 1, 0)])
    results = list(segmenter_of(truth).stream(frames_of(truth)))
    assert [result.track_ids.tolist() for result in results] == [[0], [0]]
    assert results[1].scores == np.float32(0.9)


def test_empty_video_and_frames_without_detections() -> None:
    assert segmenter_of([]).segment([]) == []
    truth = [((90, 150), [])] * 3
    assert [len(r.rles) for r in segmenter_of(truth).stream(frames_of(truth))] == [0, 0, 0]


def test_next_batch_starts_before_the_last_is_read() -> None:
    truth, events = moving_objects(6), []

    class Lazy:
        def __init__(self, value: np.ndarray, batch: int) -> None:
            self.value, self.batch = value, batch

        def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
            events.append(f"read {self.batch}")
            return self.value

    known = KnownDetector(truth)

    def predict(images: np.ndarray, sizes: np.ndarray) -> Outputs:
        batch = len(known.shapes)
        events.append(f"start {batch}")
        return {name: Lazy(value, batch) for name, value in known(images, sizes).items()}

    list(VideoSegmenter(predict, CATEGORIES, resize=RESIZE, frames_per_call=2).stream(frames_of(truth)))
    assert list(dict.fromkeys(events)) == ["start 0", "start 1", "read 0", "start 2", "read 1", "read 2"]


@pytest.mark.parametrize(
    "frame", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_frame_is_named(frame: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"frame 1: .*expected"):
        list(segmenter_of(moving_objects(1)).stream([np.zeros((90, 150, 3), np.uint8), frame]))
