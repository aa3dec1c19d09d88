"""Random segmentations: each is decoded as by pycocotools, or rejected with one line."""

from hypothesis import example, given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from masktrack_jax.masks.segmentations import BrokenSegmentation, decode_segmentation, to_rle


def read(segmentation, size):
    """(RLE, None), or (None, problem) where there is one."""
    try:
        return to_rle(segmentation, size), None
    except BrokenSegmentation as error:
        return None, str(error)


SIZES = st.sampled_from([(20, 30), (1, 1), (1, 7), (8, 1), (10**6, 10**6)])


@given(SIZES, st.binary(max_size=12) | st.text(st.characters(codec="ascii"), max_size=12))
@example((10**6, 10**6), "PPPPPPPP0")
def test_compressed_runs(size, counts):
    """Each accepted mask covers the frame exactly, as pycocotools' own decoder has it."""
    rle, problem = read({"size": list(size), "counts": counts}, size)
    if problem:
        assert "\n" not in problem
        return
    assert sum(run_lengths(counts)) == size[0] * size[1]
    if size[0] * size[1] < 10**6:
        mask = decode_segmentation(rle, *size)
        assert mask.shape == size and mask.sum() == coco_mask.area(rle) == sum(run_lengths(counts)[1::2])


def run_lengths(counts):
    """The run lengths of a compressed RLE, a number at a time: COCO's maskApi in plain words."""
    text = counts if isinstance(counts, bytes) else counts.encode()
    runs, at = [], 0
    while at < len(text):
        value = shift = 0
        while True:
            code = text[at] - 48
            at += 1
            value |= (code & 31) << shift
            shift += 5
            if not code & 32:
                break
        value -= (1 << shift) if code & 16 else 0
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return runs


COUNTS = st.lists(st.integers(0, 40) | st.sampled_from([600, 10**12, -1, True, 1.5]), max_size=5)


@given(SIZES, COUNTS)
@example((20, 30), [600])
@example((10**6, 10**6), [10**12])
def test_runs_of_a_list(size, counts):
    rle, problem = read({"size": list(size), "counts": counts}, size)
    assert (problem is None) == (rle is not None)
    if rle is not None:
        assert size[0] * size[1] < 2**28
        assert decode_segmentation(rle, *size).sum() == sum(counts[1::2])


FAR = st.sampled_from([0, 1, 5, 29, 30, -4, 999_999, -999_999, 1e6, 1e300, float("nan"), "7", None])


@given(st.lists(st.lists(FAR | st.floats(-50, 50), max_size=9), max_size=3))
@example([[0, 0, 999_999, 0, 0, 1] * 2000])
def test_polygons(outlines):
    """Outlines that pycocotools would need gigabytes for are refused."""
    _, problem = read(outlines, (20, 30))
    if not problem:
        assert decode_segmentation(outlines, 20, 30).shape == (20, 30)
