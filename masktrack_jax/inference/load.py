"""From a checkpoint to a `VideoSegmenter`."""

from functools import lru_cache, partial
from pathlib import Path

import jax

from masktrack_jax.checkpoints import store
from masktrack_jax.checkpoints.metadata import read_metadata
from masktrack_jax.config.inference import validate_inference
from masktrack_jax.config.model import validate_dtype
from masktrack_jax.inference.segmenter import VideoSegmenter
from masktrack_jax.models.masktrack_rcnn import build_model
from masktrack_jax.tracking.association import AssociationOptions
from masktrack_jax.tracking.tracks import TrackOptions

# A small network that comes with the package, see pretrained/README.md.
PRETRAINED = Path(__file__).parent.parent / "pretrained" / "generated"


def make_predict(model, variables):
    """`predict(images, image_sizes) -> dict` as `VideoSegmenter` takes it, jitted, with parameters bound;
    and a function that tells how many programs it has compiled.
    """
    run = _detector(model)
    return partial(run, jax.device_put(variables)), run._cache_size


def _detector(model):
    return jax.jit(lambda *arrays: model.apply(*arrays, method="detect")._asdict())


_kept_detector = lru_cache(maxsize=1)(_detector)  # a run that evaluates again and again compiles it once


def build_segmenter(config, categories, variables, **overrides):
    """`VideoSegmenter` of a config's `inference` section; `overrides` replace its arguments."""
    predict, _ = make_predict(build_model(config, len(categories)), variables)
    return _segmenter(config, categories, predict, **overrides)


def build_segmenters(config, categories, variables, devices):
    """One such for each of `devices`, with the parameters there."""
    run = _kept_detector(build_model(config, len(categories)))
    predicts = [partial(run, jax.device_put(variables, device)) for device in devices]
    return [_segmenter(config, categories, predict) for predict in predicts]


def _segmenter(config, categories, predict, **overrides):
    options = config.inference
    arguments = {
        "long_edge": options.scale[0],
        "short_edge": options.scale[1],
        "buckets": config.data.buckets,
        "frames_per_call": options.frames_per_call,
        "association": AssociationOptions(**options.association),
        "tracks": TrackOptions(**options.tracks),
        "pixel_boxes": config.model.pixel_boxes,
        "order_when_cut": options.order_when_cut,
    }
    return VideoSegmenter(predict, categories, **(arguments | overrides))


def load_segmenter(path, detections=None, changes=None, **overrides):
    """`VideoSegmenter` from a checkpoint alone: its own config, categories and parameters.

    `detections`: values that replace those of `model.detections`; `changes`: {key, such as
    "inference.tracks.label" or "model.dtype": value} of the config; `overrides` replace the segmenter's
    arguments.
    """
    about = read_metadata(path)
    about.config.model.detections.update(detections or {})
    about.config.update_from_flattened_dict(changes or {})
    validate_inference(about.config.inference)
    validate_dtype(about.config.model.dtype, jax.config.jax_enable_x64)
    variables = store.load_variables(path, build_model(about.config, len(about.categories)))
    return build_segmenter(about.config, about.categories, variables, **overrides)
