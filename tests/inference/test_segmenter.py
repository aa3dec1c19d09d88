"""VideoSegmenter with a detector that knows the answer: geometry, batches, order."""

import numpy as np
import pytest

from masktrack_jax.inference.segmenter import VideoSegmenter, detection_order, pixel_boxes_at_frame_size
from masktrack_jax.masks.paste import paste_masks
from masktrack_jax.masks.rle import decode_masks
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.tracking.association import AssociationOptions
from masktrack_jax.tracking.tracks import TrackOptions

CATEGORIES = [(4, "circle"), (9, "square")]
DETECTIONS = 5
RESIZE = dict(long_edge=64, short_edge=40, buckets=[(64, 64), (32, 64), (64, 32)])


class KnownDetector:
    """A `predict` that reads a frame's number off its first pixel and answers what `truth` holds for it.

    truth: for each frame its (height, width) and a list of (box in the frame's pixels, score, label, object).
    """

    def __init__(self, truth):
        self.truth, self.shapes = truth, []

    def __call__(self, images, image_sizes):
        assert images.dtype == np.uint8 and image_sizes.dtype == np.int32
        self.shapes.append(images.shape)
        count = len(images)
        out = {
            "boxes": np.full((count, DETECTIONS, 4), np.nan, np.float32),
            "scores": np.full((count, DETECTIONS), 0.99, np.float32),
            "labels": np.zeros((count, DETECTIONS), np.int32),
            "probabilities": np.zeros((count, DETECTIONS, 2), np.float32),
            "valid": np.zeros((count, DETECTIONS), bool),
            "masks": np.ones((count, DETECTIONS, 28, 28), np.float32),
            "embeddings": np.full((count, DETECTIONS, 8), np.nan, np.float32),
            "cut": np.zeros(count, bool),
        }
        for i, (image, size) in enumerate(zip(images, image_sizes)):
            (height, width), objects = self.truth[int(image[0, 0, 0])]
            assert not image[size[0] :].any() and not image[:, size[1] :].any(), "padding"
            for j, (box, score, label, identity) in enumerate(objects):
                # Leave a gap between detections: validity, not position, says what counts.
                at = DETECTIONS - 1 - j
                out["boxes"][i, at] = np.array(box) * (size[[1, 0, 1, 0]] / [width, height, width, height])
                out["scores"][i, at], out["labels"][i, at] = score, label
                out["probabilities"][i, at, label] = score
                out["valid"][i, at] = True
                out["embeddings"][i, at] = 5 * np.eye(8)[identity]
        return out


def moving_objects(count, size=(90, 150)):
    """Truth of `count` frames with three objects; one is away in the second quarter."""
    truth = []
    for t in range(count):
        objects = [
            ([5 + t, 10.5, 40 + t, 44.25], 0.9, 1, 0),
            ([60.3, 20 + t, 99.1, 60 + t], 0.8, 0, 1),
            ([100 - t, 50, 150 - t, 90], 0.7, 1, 2),
        ]
        truth.append((size, objects if not count // 4 <= t < count // 2 else objects[1:]))
    return truth


def frames_of(truth):
    return [np.full((*size, 3), index, np.uint8) for index, (size, _) in enumerate(truth)]


def segmenter_of(truth, **options):
    return VideoSegmenter(KnownDetector(truth), CATEGORIES, **{**RESIZE, "frames_per_call": 4, **options})


def test_boxes_masks_and_tracks_come_back_in_the_frames_own_pixels():
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


def test_boxes_are_clipped_to_the_frame():
    truth = [((90, 150), [([-7, 30, 160, 95], 0.9, 0, 0)])]
    (result,) = segmenter_of(truth).stream(frames_of(truth))
    np.testing.assert_allclose(result.boxes, [[0, 30, 150, 90]], atol=1e-4)


@pytest.mark.parametrize("frames_per_call", [1, 3, 16])
def test_stream_step_and_segment_agree(frames_per_call):
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
def test_a_video_goes_on_from_a_state(after, memory):
    """Also into the same batches; the object that is away when the state is taken is known again."""
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


def test_detected_once_and_associated_many_times():
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
    strict = VideoSegmenter(None, CATEGORIES, **RESIZE, **options)
    (track,) = strict.finish(strict.associate(kept))
    assert track["segmentations"] == wanted[1]["segmentations"] and track["category_id"] == 9


def test_probabilities_and_boxes_come_with_the_tracks_options():
    """A label that the detector is less sure of loses the vote, and a gap is filled."""
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


def test_frames_of_other_sizes_use_their_own_resize_and_bucket():
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


def test_duplicate_of_a_track_is_left_out():
    truth = [((90, 150), [([5, 5, 50, 50], 0.9, 1, 0)])] * 2
    truth[1] = (truth[1][0], [*truth[1][1], ([6, 5, 52, 50], 0.3, 1, 0)])
    results = list(segmenter_of(truth).stream(frames_of(truth)))
    assert [result.track_ids.tolist() for result in results] == [[0], [0]]
    assert results[1].scores == np.float32(0.9)


def test_empty_video_and_frames_without_detections():
    assert segmenter_of([]).segment([]) == []
    truth = [((90, 150), [])] * 3
    assert [len(r.rles) for r in segmenter_of(truth).stream(frames_of(truth))] == [0, 0, 0]


def test_detections_are_grouped_by_class_unless_cut_in_the_authors_form():
    scores = np.array([0.5, 0.9, 0.3, 0.8, 0.9, 0.7, 0.99], np.float32)
    labels = np.array([1, 1, 0, 0, 0, 2, 0])
    valid = np.array([True] * 6 + [False])
    assert detection_order(scores, labels, valid, False).tolist() == [4, 3, 2, 1, 0, 5]
    assert detection_order(scores, labels, valid, False, "score").tolist() == [4, 3, 2, 1, 0, 5]
    full = np.ones(7, bool)
    assert detection_order(scores, labels, full, True).tolist() == [6, 4, 3, 2, 1, 0, 5]
    assert detection_order(scores, labels, full, False, "score").tolist() == [6, 4, 3, 2, 1, 0, 5]
    assert detection_order(scores, labels, full, True, "score").tolist() == [6, 1, 4, 3, 5, 0, 2]


def test_the_authors_scale_first_and_last_pixels_by_one_factor():
    boxes = pixel_boxes_at_frame_size(np.array([[8.0, 4.0, 21.0, 9.0]]), 2.0)
    assert boxes.tolist() == [[4.0, 2.0, 11.0, 5.0]]  # pixels 8…20 and 4…8 over 2, and one more


def test_next_batch_starts_before_the_last_is_read():
    truth, events = moving_objects(6), []

    class Lazy:
        def __init__(self, value, batch):
            self.value, self.batch = value, batch

        def __array__(self, dtype=None, copy=None):
            events.append(f"read {self.batch}")
            return self.value

    known = KnownDetector(truth)

    def predict(images, sizes):
        batch = len(known.shapes)
        events.append(f"start {batch}")
        return {name: Lazy(value, batch) for name, value in known(images, sizes).items()}

    list(VideoSegmenter(predict, CATEGORIES, **RESIZE, frames_per_call=2).stream(frames_of(truth)))
    assert list(dict.fromkeys(events)) == ["start 0", "start 1", "read 0", "start 2", "read 1", "read 2"]


@pytest.mark.parametrize(
    "frame", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_frame_is_named(frame):
    with pytest.raises(UserError, match=r"frame 1: .*expected"):
        list(segmenter_of(moving_objects(1)).stream([np.zeros((90, 150, 3), np.uint8), frame]))
