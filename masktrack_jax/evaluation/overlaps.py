"""Ground truth and results side by side: the overlap of every labelled with every predicted track.

Both evaluators (`vis_ap`, `identity`) start from here, so the json is checked and the masks are read
once. Tracks meet only inside one video and one category.
"""

from dataclasses import dataclass, field
from itertools import zip_longest
from numbers import Real

import numpy as np
from tqdm import tqdm

from masktrack_jax.masks.overlap import common_pixels, overlap_ratios
from masktrack_jax.masks.segmentations import BrokenMask, read_tracks
from masktrack_jax.runtime.errors import UserError

NO_LABELS = (
    "has no annotations; the labels of public validation and test sets stay on their server: upload "
    "results.json there, or score on videos with labels"
)


@dataclass(frozen=True)
class Tracks:
    """The N tracks of one category in one video on one side, in the order of their file, T frames.

    Attributes:
      scores: (N,) float, 1 for ground truth.
      crowd: (N,) bool, False for predictions.
      mean_area: (N,) float, mean over the frames with a non-zero area, 0 where there is none. Ground
        truth takes the areas its file states, as the official evaluator does.
      lengths: (N,) int, entries of each track's `segmentations`; T is the largest.
      areas: (N, T) int64, pixels of each mask, -1 where there is none.
    """

    scores: np.ndarray
    crowd: np.ndarray
    mean_area: np.ndarray
    lengths: np.ndarray
    areas: np.ndarray


@dataclass(frozen=True)
class ClassOverlap:
    """One category of one video: D predicted tracks, G labelled tracks and what they share.

    `intersection` is (D, G, T) int64 with T the smaller number of frames: common pixels in each
    frame, 0 where either has no mask, -1 where the two masks are of different sizes.
    """

    video_id: object
    category_id: object
    num_frames: int
    predicted: Tracks
    labelled: Tracks
    intersection: np.ndarray


@dataclass(frozen=True)
class Overlaps:
    """A whole problem. `categories`: id → name, by rising id. `pairs`: by rising video id, then
    category id, only where there is a label or a prediction. `notes`: lines a person should read."""

    categories: dict
    pairs: list
    notes: list = field(default_factory=list)


def compute_overlaps(ground_truth, results, names=("ground truth", "results"), progress=False):
    """Checks both sides and intersects them.

    Args:
      ground_truth: dict in YouTube-VIS form (`videos`, `categories`, `annotations`).
      results: list of `{video_id, category_id, score, segmentations}`; other keys are ignored.
      names: what to call the two in messages, usually their paths.
      progress: show a bar on a terminal.
    Raises:
      UserError: duplicate video or category ids, a label or prediction of an unknown video, a label
        of an unknown category, missing keys, a score that is no number, a broken mask.

    Annotation ids are never used, so 0 and duplicates do no harm (the official code takes the match
    with annotation 0 for no match, and scores the last of two equal ids twice). Predictions of an
    unknown category are left out, as the official code does silently; here with a note.
    """
    gt_name, result_name = names
    if not isinstance(ground_truth, dict):
        raise UserError(f"{gt_name}: expected a json object with videos, categories and annotations")
    if not isinstance(results, list):
        raise UserError(f"{result_name}: expected a json list of tracks, got {type(results).__name__}")
    videos = _index(ground_truth, "videos", gt_name)
    categories = _index(ground_truth, "categories", gt_name)
    if ground_truth.get("annotations") is None:
        raise UserError(f"{gt_name}: {NO_LABELS}")
    notes = []
    labels = _group(ground_truth["annotations"], videos, categories, f"{gt_name}: annotations", None)
    predictions = _group(results, videos, categories, result_name, notes)
    categories = {key: str(categories[key].get("name", key)) for key in _sorted(categories, gt_name)}
    pairs, resized, nothing = [], 0, (_tabulate([], [], "", is_label=False), [])
    video_ids = _sorted(videos, gt_name)
    for video_id in tqdm(video_ids, "scoring", unit="video", disable=None if progress else True):
        video = videos[video_id]
        ours = _read_tracks(predictions.pop(video_id, {}), video, result_name, is_label=False)
        theirs = _read_tracks(labels.pop(video_id, {}), video, f"{gt_name}: annotations", is_label=True)
        for category_id in categories:
            if category_id not in ours and category_id not in theirs:
                continue
            predicted, predicted_rles = ours.get(category_id, nothing)
            labelled, labelled_rles = theirs.get(category_id, nothing)
            shared = _intersect(predicted, predicted_rles, labelled, labelled_rles)
            resized += np.count_nonzero(shared < 0)
            frames = _num_frames(video, predicted, labelled)
            pairs.append(ClassOverlap(video_id, category_id, frames, predicted, labelled, shared))
    if resized:
        notes.append(f"{result_name}: {resized} pairs of masks differ in size from the label's; not counted")
    return Overlaps(categories, pairs, notes)


def _index(ground_truth, key, name):
    """Records of `videos` or `categories` by id."""
    records = ground_truth.get(key)
    if not isinstance(records, list):
        raise UserError(f"{name}: '{key}' is missing or not a list")
    index = {}
    for place, record in enumerate(records):
        record_id = _field(record, "id", f"{name}: {key}[{place}]")
        if record_id in index:
            raise UserError(f"{name}: {key}[{place}]: id {record_id!r} is used twice; give each its own")
        index[record_id] = record
    return index


def _sorted(index, name):
    try:
        return sorted(index)
    except TypeError:
        raise UserError(f"{name}: ids mix numbers and strings; use one kind") from None


def _group(records, videos, categories, name, notes):
    """Video id → category id → list of (place in the file, record). Unknown categories are an error
    where `notes` is None, else they are left out and noted."""
    if not isinstance(records, list):
        raise UserError(f"{name}: expected a list, got {type(records).__name__}")
    groups, unknown = {}, []
    for place, record in enumerate(records):
        where = f"{name}[{place}]"
        video_id, category_id = _field(record, "video_id", where), _field(record, "category_id", where)
        if video_id not in videos:
            raise UserError(f"{where}: video_id {video_id!r} is not among the annotation file's videos")
        if category_id not in categories:
            if notes is None:
                raise UserError(f"{where}: category_id {category_id!r} is not among the file's categories")
            unknown.append(category_id)
            continue
        groups.setdefault(video_id, {}).setdefault(category_id, []).append((place, record))
    if unknown:
        notes.append(f"{name}: {len(unknown)} tracks of unknown categories left out, first {unknown[0]!r}")
    return groups


def _field(record, key, where):
    """`record[key]` for an id, or a UserError."""
    if not isinstance(record, dict) or key not in record:
        raise UserError(f"{where}: '{key}' is missing")
    if not isinstance(record[key], Real | str):
        raise UserError(f"{where}: '{key}' must be a number or a string, got {record[key]!r:.40}")
    return record[key]


def _num_frames(video, predicted, labelled):
    """Frames of the video, from its record or, failing that, from its longest track."""
    if isinstance(video.get("file_names"), list):
        return len(video["file_names"])
    if isinstance(video.get("length"), int):
        return video["length"]
    return max(predicted.areas.shape[1], labelled.areas.shape[1])


def _read_tracks(groups, video, name, is_label):
    """Category id → (Tracks, list of lists of RLEs) of the records of one video by category."""
    placed = [entry for group in groups.values() for entry in group]
    for place, record in placed:
        if not isinstance(record.get("segmentations"), list):
            raise UserError(f"{name}[{place}]: 'segmentations' is missing or not a list")
    size = video.get("height"), video.get("width")  # None where the file does not say: only polygons care
    try:
        found = iter(read_tracks([record["segmentations"] for _, record in placed], size))
    except BrokenMask as error:
        place, record = placed[error.track]
        raise UserError(f"{name}[{place}] (video_id {record['video_id']}): {error}") from None
    tracks = {}
    for category_id, group in groups.items():
        rles, areas = zip(*[next(found) for _ in group])
        tracks[category_id] = _tabulate(group, areas, name, is_label), rles
    return tracks


def _tabulate(placed, areas, name, is_label):
    """The Tracks of (place, record) and their masks' areas."""
    lengths = np.array([len(row) for row in areas], int)
    table = np.full((len(areas), lengths.max(initial=0)), -1, np.int64)
    for row, values in zip(table, areas):
        row[: len(values)] = values
    wheres, records = [f"{name}[{place}]" for place, _ in placed], [record for _, record in placed]
    if is_label:
        scores, crowd = np.ones(len(placed)), [bool(record.get("iscrowd")) for record in records]
        mean_area = list(map(_mean_area, map(_stated_areas, records, areas, wheres)))
    else:
        scores, crowd = list(map(_score, records, wheres)), np.zeros(len(placed))
        mean_area = np.maximum(table, 0).sum(1) / np.maximum((table > 0).sum(1), 1)
    return Tracks(np.array(scores, float), np.array(crowd, bool), np.array(mean_area, float), lengths, table)


def _score(record, where):
    score = record.get("score")
    if isinstance(score, bool) or not isinstance(score, Real) or np.isnan(score):
        raise UserError(f"{where}: 'score' must be a number, got {score!r}")
    return float(score)


def _stated_areas(record, measured, where):
    """A label's own `areas`; the masks' where the file has none (the official code stops there)."""
    stated = record.get("areas")
    if stated is None:
        return measured
    try:
        return np.array([area or 0 for area in stated], float)
    except (TypeError, ValueError):
        raise UserError(f"{where}: 'areas' must be a list of numbers and nulls") from None


def _mean_area(areas):
    """Mean of the areas above zero (0 and -1 stand for no mask), 0 where there is none."""
    there = areas[areas > 0]
    return there.mean() if len(there) else 0.0


def _intersect(predicted, predicted_rles, labelled, labelled_rles):
    """(D, G, T) int64 common pixels a frame, as `ClassOverlap.intersection`."""
    frames = min(predicted.areas.shape[1], labelled.areas.shape[1])
    ours, theirs = predicted.areas[:, :frames], labelled.areas[:, :frames]
    ratio = np.zeros((frames, len(ours), len(theirs)))
    seen = zip(zip_longest(*predicted_rles), zip_longest(*labelled_rles))
    for found, (our_rles, their_rles) in zip(ratio, seen):
        rows = [row for row, rle in enumerate(our_rles) if rle]
        columns = [column for column, rle in enumerate(their_rles) if rle]
        if rows and columns:
            found[np.ix_(rows, columns)] = overlap_ratios(
                [our_rles[row] for row in rows], [their_rles[column] for column in columns]
            )
    return common_pixels(ratio.transpose(1, 2, 0), ours[:, None], theirs[None])
