"""From a checkpoint to a `VideoSegmenter`, and over the videos of a split."""

import itertools
from functools import partial
from pathlib import Path

import jax
from tqdm import tqdm

from masktrack_jax import checkpoints
from masktrack_jax.data.images import bucket_for, check_frame_size, fit_size, read_image
from masktrack_jax.data.vis import read_vis
from masktrack_jax.errors import UserError, make_folder
from masktrack_jax.evaluation.results import write_results
from masktrack_jax.evaluation.score import score_files
from masktrack_jax.inference import VideoSegmenter
from masktrack_jax.models.masktrack_rcnn import build_model
from masktrack_jax.tracking.association import AssociationOptions

# A small network that comes with the package, see pretrained/README.md.
PRETRAINED = Path(__file__).parent / "pretrained" / "generated"


def make_predict(model, variables):
    """`predict(images, image_sizes) -> dict` as `VideoSegmenter` takes it, jitted, with parameters bound;
    and a function that tells how many programs it has compiled.
    """
    run = jax.jit(lambda *arrays: model.apply(*arrays, method="detect")._asdict())
    predict = partial(run, jax.device_put(variables))
    return predict, run._cache_size


def build_segmenter(config, categories, variables, **overrides):
    """`VideoSegmenter` of a config's `inference` section; `overrides` replace its arguments."""
    options = config.inference
    predict, _ = make_predict(build_model(config, len(categories)), variables)
    arguments = {
        "long_edge": options.scale[0],
        "short_edge": options.scale[1],
        "buckets": config.data.buckets,
        "frames_per_call": options.frames_per_call,
        "association": AssociationOptions(**options.association),
        "pixel_boxes": config.model.pixel_boxes,
        "order_when_cut": options.order_when_cut,
    }
    return VideoSegmenter(predict, categories, **(arguments | overrides))


def load_segmenter(path, detections=None, **overrides):
    """`VideoSegmenter` from a checkpoint alone: its own config, categories and parameters.

    `detections`: values that replace those of `model.detections`; `overrides` replace the segmenter's
    arguments.
    """
    about = checkpoints.read_about(path)
    about.config.model.detections.update(detections or {})
    variables = checkpoints.load_variables(path, build_model(about.config, len(about.categories)))
    return build_segmenter(about.config, about.categories, variables, **overrides)


def segment_split(segmenter, dataset):
    """Tracks of all videos of a `VisDataset`, in the results file's form; shows a progress bar."""
    tracks = []
    for video in tqdm(dataset.videos, "segment", unit="video", disable=None):
        tracks += segmenter.segment(read_frames(dataset, video), video.id)
    return tracks


def read_frames(dataset, video):
    """The frames of a video, each of the size that the annotations file says."""
    for t in range(video.length):
        path = dataset.frame_path(video, t)
        image = read_image(path)
        check_frame_size(image, video.height, video.width, path)
        yield image


def open_split(config, categories):
    """The validation split of `config` as a `VisDataset`; None where it names none.

    Raises a UserError for what would go wrong in segmenting it: other categories than `categories` (id,
    name) of the network, missing frames, videos that fit no bucket.
    """
    annotations = config.data.val_annotations
    if not annotations:
        return None
    dataset = read_vis(annotations, config.data.val_frames or None)
    check_categories(categories, dataset, annotations)
    for video in dataset.videos:
        bucket_for(*fit_size(video.height, video.width, *config.inference.scale), config.data.buckets)
        if not (path := dataset.frame_path(video, 0)).is_file():
            raise UserError(f"{path}: no such frame of {annotations}; set config.data.val_frames")
    return dataset


def evaluate_split(config, dataset, categories, variables, output, diagnosed=False, frames_root=None):
    """Segment the validation split of `config` (see `open_split`) and score it; returns metrics or None.

    Writes `output` (metrics.json) and results.json beside it, and prints the table. A split without
    labels gets its results.json for the server, and no metrics. `diagnosed` and `frames_root` are those of
    `score_files`; the frames are by default the split's own.
    """
    annotations = config.data.val_annotations
    output = Path(output)
    results = make_folder(output.parent) / "results.json"
    write_results(results, segment_split(build_segmenter(config, categories, variables), dataset))
    if not dataset.labelled:
        print(f"{annotations} has no labels: upload {results} to the data set's server")
        return None
    root = frames_root or dataset.frames_root
    metrics = score_files(annotations, results, output, diagnosed=diagnosed, frames_root=root)
    print(f"tracks: {results}   scores: {output}")
    return metrics


def check_categories(categories, dataset, annotations):
    """The labels of a network mean the categories that it was trained on, in their order."""
    there = dataset.labels
    if there != categories:
        pairs = itertools.zip_longest(there, categories)
        ours, theirs = next(pair for pair in pairs if pair[0] != pair[1])
        raise UserError(
            f"{annotations}: its {len(there)} categories are not the checkpoint's {len(categories)} "
            f"({ours} against {theirs}); use a checkpoint trained on them"
        )
