"""Segment and score the videos of a split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from tqdm import tqdm

from masktrack_jax.checkpoints.categories import match_categories, unmatched
from masktrack_jax.data.json_files import read_results, write_json
from masktrack_jax.data.splits import ground_truth, validation_split
from masktrack_jax.data.vis import Video, VisDataset
from masktrack_jax.evaluation.results import write_results
from masktrack_jax.evaluation.score import score_tracks
from masktrack_jax.evaluation.validate import write_submission
from masktrack_jax.inference.load import build_segmenters
from masktrack_jax.inference.segmenter import VideoSegmenter
from masktrack_jax.runtime import copies, processes
from masktrack_jax.runtime.errors import UserError, printable
from masktrack_jax.runtime.files import make_folder
from masktrack_jax.tracking.tracks import TrackRecord
from masktrack_jax.video.images import bucket_for, fit_size

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def segment_split(segmenters: Sequence[VideoSegmenter], dataset: VisDataset) -> list[TrackRecord] | None:
    """Return the tracks of all videos of a data set, in the order of the videos.

    The videos are distributed over the processes of a run, and in each process over `segmenters`, one per
    device. Process 0 returns the tracks, the others return None.
    """
    count = jax.process_count()
    mine = dataset.videos[jax.process_index() :: count]
    parts = processes.gather(segment_videos(segmenters, dataset, mine))
    if parts is None:
        return None
    return [track for i in range(len(dataset.videos)) for track in parts[i % count][i // count]]


def segment_videos(
    segmenters: Sequence[VideoSegmenter], dataset: VisDataset, videos: Sequence[Video]
) -> list[list[TrackRecord]]:
    """Return the tracks of each video; each free segmenter takes the next video. Shows a progress bar."""
    free: SimpleQueue[VideoSegmenter] = SimpleQueue()
    for segmenter in segmenters:
        free.put(segmenter)

    def segment(video: Video) -> list[TrackRecord]:
        segmenter = free.get()
        try:
            return segmenter.segment(read_frames(dataset, video), video.id)
        finally:
            free.put(segmenter)

    hidden = None if processes.is_first() else True  # None hides it only if standard error is not a terminal
    with ThreadPoolExecutor(len(segmenters)) as pool:
        done = pool.map(segment, videos)
        return list(tqdm(done, "segment", total=len(videos), unit="video", disable=hidden))


def read_frames(dataset: VisDataset, video: Video) -> Iterator[np.ndarray]:
    """Yield the frames of a video, checked to have the size given in the annotations file."""
    return (dataset.read_frame(video, frame) for frame in range(video.length))


def open_split(config: ConfigDict, categories: Sequence[tuple[int, str]]) -> VisDataset | None:
    """Return the validation split of `config` (`splits.validation_split`), or None if the config names none.

    Raises a UserError if the split cannot be segmented: none of its categories is among the network's
    `categories` (id, name), frames are missing, or a video fits no bucket.
    """
    dataset = validation_split(config)
    if dataset is None:
        return None
    common_categories(categories, dataset)
    copies.look_ahead([dataset.frames_root.joinpath(video.file_names[0]).parent for video in dataset.videos])
    for video in dataset.videos:
        height, width = fit_size(video.height, video.width, *config.inference.scale)
        bucket_for(height, width, config.data.buckets)
        if not dataset.has_frame(video, 0):
            raise UserError(
                f"{dataset.frame_path(video, 0)}: no such frame of {dataset.annotations_path}; set "
                "config.data.val_frames"
            )
    return dataset


def evaluate_split(
    config: ConfigDict,
    dataset: VisDataset,
    categories: Sequence[tuple[int, str]],
    variables: Mapping[str, Any],
    output: str | Path,
    *,
    diagnosed: bool = False,
    frames_root: str | Path | None = None,
) -> dict[str, Any] | None:
    """Segment a split (see `open_split`) and score it; return the metrics, or None if it has no labels.

    Writes `output` (metrics.json) and results.json beside it, and prints a table. Scores cover the categories
    that the split and the network (`categories`, (id, name)) have in common; results have the split's ids. If
    only some videos or categories of the annotations file are scored, their labels are written to
    labels.json. For a split without labels, a results.zip for its server is checked and written instead of
    metrics. See `score_files` for `diagnosed` and `frames_root`, which is by default the split's frames
    folder. All processes of a run call this function; process 0 writes, and all return the metrics.
    """
    output = Path(output)
    results = make_folder(output.parent) / "results.json"
    ids = common_categories(categories, dataset)
    devices = jax.local_devices()[: len(dataset.videos)]
    tracks = segment_split(build_segmenters(config, categories, variables, devices), dataset)
    metrics = None
    if tracks is not None:  # process 0
        write_results(results, with_category_ids(tracks, ids))
        if dataset.labelled:
            labels = ground_truth(dataset, set(ids.values()))
            metrics = score_tracks(
                labels,
                read_results(results),
                (printable(str(dataset.annotations_path)), printable(str(results))),
                output,
                diagnosed=diagnosed,
                frames_root=frames_root or dataset.frames_root,
            )
            print(printable(f"tracks: {results}   scores: {output}"))
            if config.data.holdout or len(labels["categories"]) < len(dataset.categories):
                write_json(output.parent / "labels.json", labels, indent=None)
                print(printable(f"scored on: {output.parent / 'labels.json'}"))
        else:
            archive = write_submission(results, dataset.annotations_path)
            line = f"{dataset.annotations_path} has no labels: upload {archive} to the data set's server"
            print(printable(line))
    return processes.broadcast(metrics)


def common_categories(categories: Sequence[tuple[int, str]], dataset: VisDataset) -> dict[int, int]:
    """Return {category id of the network: category id of the data set} for the categories they share.

    Prints the categories that only one of the two has. Raises a UserError if they share none.
    """
    there = dataset.labels
    places = match_categories([name for _, name in categories], [name for _, name in there])
    ids = {mine: there[place][0] for (mine, _), place in zip(categories, places) if place is not None}
    unknown = unmatched([name for _, name in there], places)
    if not ids:
        ours, theirs = (", ".join(name for _, name in some[:3]) for some in (there, categories))
        raise UserError(
            f"{dataset.annotations_path}: none of its {len(there)} categories ({ours}, …) is among the "
            f"network's {len(categories)} ({theirs}, …); use a checkpoint trained on them"
        )
    if unknown:
        line = (
            f"{dataset.annotations_path}: {len(ids)} of its {len(there)} categories are known to the network "
            f"and evaluated; not {unknown}"
        )
        print(printable(line))
    matched = [label for label, place in enumerate(places) if place is not None]
    if absent := unmatched([name for _, name in categories], matched):
        line = f"{dataset.annotations_path}: has no {absent}; tracks of these categories are left out"
        print(printable(line))
    return ids


def with_category_ids(tracks: Iterable[TrackRecord], ids: Mapping[int, int]) -> list[TrackRecord]:
    """Return the tracks whose category ids are keys of `ids`, with the ids replaced."""
    known = (track for track in tracks if track["category_id"] in ids)
    return [{**track, "category_id": ids[track["category_id"]]} for track in known]
