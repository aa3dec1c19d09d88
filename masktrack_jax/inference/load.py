"""Build a `VideoSegmenter` from a checkpoint, or from a config and parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from masktrack_jax.checkpoints import store
from masktrack_jax.checkpoints.metadata import read_metadata
from masktrack_jax.config.inference import validate_inference
from masktrack_jax.config.model import validate_dtype
from masktrack_jax.inference.frames import Resize
from masktrack_jax.inference.segmenter import Predict, VideoSegmenter
from masktrack_jax.models.masktrack_rcnn import MaskTrackRCNN, build_model
from masktrack_jax.runtime.programs import Announced, keep_programs_of_library
from masktrack_jax.tracking.options import AssociationOptions
from masktrack_jax.tracking.tracks import TrackOptions

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    Variables = Mapping[str, Any]
    Categories = Sequence[tuple[int, str]]

# A small network included in the package, see pretrained/README.md.
PRETRAINED = Path(__file__).parent.parent / "pretrained" / "generated"


def make_predict(model: MaskTrackRCNN, variables: Variables) -> Predict:
    """Return the jitted `predict` of a network, on the default device."""
    (device,) = jnp.zeros(()).devices()
    # Committed to it, as in `build_segmenters`: otherwise the cache on disk would need another program.
    return partial(_detector(model), jax.device_put(variables, device))


def _detector(model: MaskTrackRCNN) -> Announced:
    """Return the jitted function of variables, images and image sizes, which shows its compilations."""

    def detect(*arrays: Any) -> dict[str, jax.Array]:
        detections: Any = model.apply(*arrays, method="detect")
        return detections._asdict()

    def describe(_: Variables, images: np.ndarray, *__: Any) -> str:
        batch, height, width, _channels = images.shape
        return f"detection for {batch} frame{'s' * (batch > 1)} of {height}×{width}"

    return Announced(jax.jit(detect), describe)


_kept_detector = lru_cache(maxsize=1)(_detector)  # repeated evaluations in a run compile it once


def build_segmenter(
    config: ConfigDict,
    categories: Categories,
    variables: Variables,
    **overrides: Any,
) -> VideoSegmenter:
    """Return the `VideoSegmenter` of a config's `inference` section; `overrides` replace its arguments."""
    predict = make_predict(build_model(config, len(categories)), variables)
    return _segmenter(config, categories, predict, **overrides)


def build_segmenters(
    config: ConfigDict,
    categories: Categories,
    variables: Variables,
    devices: Iterable[jax.Device],
) -> list[VideoSegmenter]:
    """Return a segmenter for each of `devices`, with the parameters on that device."""
    run = _kept_detector(build_model(config, len(categories)))
    predicts = [partial(run, jax.device_put(variables, device)) for device in devices]
    return [_segmenter(config, categories, predict) for predict in predicts]


def _segmenter(
    config: ConfigDict, categories: Categories, predict: Predict, **overrides: Any
) -> VideoSegmenter:
    options = config.inference
    long_edge, short_edge = options.scale
    arguments = {
        "resize": Resize(long_edge, short_edge, config.data.buckets),
        "frames_per_call": options.frames_per_call,
        "association": AssociationOptions(**options.association),
        "tracks": TrackOptions(**options.tracks),
        "pixel_boxes": config.model.pixel_boxes,
        "order_when_cut": options.order_when_cut,
    }
    return VideoSegmenter(predict, categories, **(arguments | overrides))


def load_segmenter(
    path: str | Path,
    detections: Mapping[str, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
    **overrides: Any,
) -> VideoSegmenter:
    """Return a `VideoSegmenter` with the config, categories and parameters of a checkpoint.

    Compiled programs are kept in ~/.cache/masktrack_jax (or below XDG_CACHE_HOME), so that the next process
    compiles nothing again: JAX's compilation cache is set for the whole process, unless it is set already.
    The environment variable MASKTRACK_CACHE names another folder; MASKTRACK_CACHE=off turns this off.

    detections: values that override `model.detections`.
    changes: {key: value} to change in the config, such as "inference.tracks.label" or "model.dtype".
    overrides: arguments of the `VideoSegmenter`.
    """
    keep_programs_of_library()
    metadata = read_metadata(path)
    metadata.config.model.detections.update(detections or {})
    metadata.config.update_from_flattened_dict(changes or {})
    validate_inference(metadata.config.inference)
    validate_dtype(metadata.config.model.dtype, jax.config.read("jax_enable_x64"))
    variables = store.load_variables(path, build_model(metadata.config, len(metadata.categories)))
    return build_segmenter(metadata.config, metadata.categories, variables, **overrides)
