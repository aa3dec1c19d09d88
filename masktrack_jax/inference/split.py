"""Segment and score the videos of a split."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import jax
from tqdm import tqdm

from masktrack_jax.checkpoints.categories import match_categories
from masktrack_jax.data.images import bucket_for, fit_size
from masktrack_jax.data.json_files import read_results, write_json
from masktrack_jax.data.splits import ground_truth, validation_split
from masktrack_jax.evaluation.results import write_results
from masktrack_jax.evaluation.score import score_tracks
from masktrack_jax.evaluation.validate import write_submission
from masktrack_jax.inference.load import build_segmenters
from masktrack_jax.runtime import processes as distributed
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import make_folder


def segment_split(segmenters, dataset):
    """Tracks of all videos of a `VisDataset`, in the results file's form and the order of the videos.

    The videos are shared out over the processes of a run and there over `segmenters`, each of a device of its
    own. In process 0; None in the others.
    """
    count = jax.process_count()
    mine = dataset.videos[jax.process_index() :: count]
    parts = distributed.gather(segment_videos(segmenters, dataset, mine))
    if parts is None:
        return None
    return [track for i in range(len(dataset.videos)) for track in parts[i % count][i // count]]


def segment_videos(segmenters, dataset, videos):
    """Tracks of each of `videos`, by whichever segmenter is free; shows a progress bar."""
    free = SimpleQueue()
    for segmenter in segmenters:
        free.put(segmenter)

    def segment(video):
        segmenter = free.get()
        try:
            return segmenter.segment(read_frames(dataset, video), video.id)
        finally:
            free.put(segmenter)

    hidden = None if distributed.is_first() else True  # None: where nobody looks
    with ThreadPoolExecutor(len(segmenters)) as pool:
        done = pool.map(segment, videos)
        return list(tqdm(done, "segment", total=len(videos), unit="video", disable=hidden))


def read_frames(dataset, video):
    """The frames of a video, each of the size that the annotations file says."""
    return (dataset.read_frame(video, frame) for frame in range(video.length))


def open_split(config, categories):
    """The validation split of `config` (`splits.validation_split`) as a `VisDataset`; None if it names none.

    Raises a UserError for what would go wrong in segmenting it: no category that is among `categories` (id,
    name) of the network, missing frames, videos that fit no bucket.
    """
    dataset = validation_split(config)
    if dataset is None:
        return None
    common_categories(categories, dataset)
    for video in dataset.videos:
        bucket_for(*fit_size(video.height, video.width, *config.inference.scale), config.data.buckets)
        if not dataset.has_frame(video, 0):
            raise UserError(
                f"{dataset.frame_path(video, 0)}: no such frame of {dataset.annotations_path}; set "
                "config.data.val_frames"
            )
    return dataset


def evaluate_split(config, dataset, categories, variables, output, diagnosed=False, frames_root=None):
    """Segment a split (see `open_split`) and score it; returns metrics, or None where it has no labels.

    Writes `output` (metrics.json) and results.json beside it, and prints the table. Of a split with other
    categories than `categories` (id, name) of the network, those in common are scored; results have the
    split's ids. Where only a part of the file's videos or categories is scored, labels.json has that part. A
    split without labels gets a results.zip, checked as its server does, and no metrics. `diagnosed` and
    `frames_root` are those of `score_files`; the frames are by default the split's own. Of several processes
    all call this, process 0 writes, and all get the metrics.
    """
    output = Path(output)
    results = make_folder(output.parent) / "results.json"
    ids = common_categories(categories, dataset)
    devices = jax.local_devices()[: len(dataset.videos)]
    tracks = segment_split(build_segmenters(config, categories, variables, devices), dataset)
    metrics = None
    if distributed.is_first():
        write_results(results, with_category_ids(tracks, ids))
        metrics = _score_split(config, dataset, set(ids.values()), output, diagnosed, frames_root)
    return distributed.broadcast(metrics)


def _score_split(config, dataset, ids, output, diagnosed, frames_root):
    """What `evaluate_split` does with results.json; `ids` of the categories to score."""
    results = output.parent / "results.json"
    if not dataset.labelled:
        archive = write_submission(results, dataset.annotations_path)
        print(f"{dataset.annotations_path} has no labels: upload {archive} to the data set's server")
        return None
    labels = ground_truth(dataset, ids)
    metrics = score_tracks(
        labels,
        read_results(results),
        (str(dataset.annotations_path), str(results)),
        output,
        diagnosed=diagnosed,
        frames_root=frames_root or dataset.frames_root,
    )
    print(f"tracks: {results}   scores: {output}")
    if config.data.holdout or len(labels["categories"]) < len(dataset.categories):
        write_json(output.parent / "labels.json", labels, indent=None)
        print(f"what was scored on: {output.parent / 'labels.json'}")
    return metrics


def common_categories(categories, dataset):
    """{category id of the network: that of the data set} of the categories (id, name) that both know by name.

    Says how many the network does not know. Raises a UserError where it knows none.
    """
    there = dataset.labels
    places = match_categories([name for _, name in categories], [name for _, name in there])
    ids = {mine: there[place][0] for (mine, _), place in zip(categories, places) if place is not None}
    unknown = [name for category_id, name in there if category_id not in ids.values()]
    if not ids:
        ours, theirs = (", ".join(name for _, name in some[:3]) for some in (there, categories))
        raise UserError(
            f"{dataset.annotations_path}: none of its {len(there)} categories ({ours}, …) is among the "
            f"network's {len(categories)} ({theirs}, …); use a checkpoint trained on them"
        )
    if unknown:
        print(
            f"{dataset.annotations_path}: {len(there) - len(unknown)} of its {len(there)} categories are "
            f"known to the network and evaluated; not {', '.join(unknown)}"
        )
    return ids


def with_category_ids(tracks, ids):
    """`tracks` with category ids replaced as `ids` says, without those that it does not have."""
    known = (track for track in tracks if track["category_id"] in ids)
    return [track | {"category_id": ids[track["category_id"]]} for track in known]
