"""A video of six frames with two moving objects, and tracks of them, for tests of the diagnosis."""

from PIL import Image

from masktrack_jax.data.labels import check_labels
from masktrack_jax.evaluation.diagnosis import report
from masktrack_jax.evaluation.diagnosis.comparisons import read_comparisons
from masktrack_jax.evaluation.faults import Refusals
from masktrack_jax.evaluation.tracks import tracks_to_score
from tests.helpers import evaluation

CAT, DOG = 1, 2
SIZE = (40, 60)


def rectangle(x, y, width=12, height=12, size=SIZE):
    """The RLE of a rectangle."""
    return evaluation.rectangle(x, y, width, height, size)


# Two objects that move to the right in different rows, and a track far from both.
TOP = [rectangle(2 + 5 * t, 2) for t in range(6)]
BOTTOM = [rectangle(2 + 5 * t, 22) for t in range(6)]
POOR = [rectangle(2 + 5 * t, 8) for t in range(6)]  # half of the rows of TOP: IoU 1/3
NOWHERE = [rectangle(46, 4)] * 2 + [None] * 2 + [rectangle(2, 4, 6, 6)] * 2


def track(masks, category_id=CAT, score=0.9, video_id=1):
    """A predicted track of these masks."""
    return {"video_id": video_id, "category_id": category_id, "score": score, "segmentations": list(masks)}


def ground_truth(*labels):
    """One video with labels of (masks, category)."""
    frames = [f"a/{t}.jpg" for t in range(6)]
    annotations = [
        {"id": i + 1, "video_id": 1, "category_id": category_id, "iscrowd": 0, "segmentations": list(masks)}
        for i, (masks, category_id) in enumerate(labels)
    ]
    return {
        "videos": [{"id": 1, "height": SIZE[0], "width": SIZE[1], "length": 6, "file_names": frames}],
        "categories": [{"id": CAT, "name": "cat"}, {"id": DOG, "name": "dog <small>"}],
        "annotations": annotations,
    }


TWO_CATS = ground_truth((TOP, CAT), (BOTTOM, CAT))
CAT_AND_DOG = ground_truth((TOP, CAT), (BOTTOM, DOG))
PERFECT = [track(TOP, score=0.6), track(BOTTOM, score=0.6)]


def read(truth, results):
    """The checked labels and tracks."""
    labels = check_labels(truth, "truth")
    return labels, tracks_to_score(results, labels, Refusals("results"))


def compare(truth, results):
    """The `VideoComparison` of every video."""
    return read_comparisons(*read(truth, results))[1]


def diagnose(truth, results):
    """The diagnosis of results, without notes on what is left out."""
    return report.diagnose(*read(truth, results))


def write_frames(root):
    """Write the images of `ground_truth` below a folder."""
    (root / "a").mkdir(parents=True)
    for t in range(6):
        Image.new("RGB", SIZE[::-1], (20, 160, 40)).save(root / "a" / f"{t}.jpg")
