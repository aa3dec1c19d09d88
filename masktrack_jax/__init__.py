"""MaskTrack R-CNN (Yang, Fan, Xu, ICCV 2019): video instance segmentation in JAX and Flax.

    import masktrack_jax

    segmenter = masktrack_jax.load_segmenter("runs/demo")
    tracks = segmenter.segment(frames)
    metrics = masktrack_jax.evaluate("instances.json", "results.json")

- `load_segmenter`: returns a `VideoSegmenter` from a checkpoint; see `inference.load`.
- `VideoSegmenter`: turns frames into tracks; see `inference.segmenter`.
- `evaluate`: scores a results file on its labels; see `evaluation.score.score_files`.

These names are imported lazily, so `import masktrack_jax` loads neither JAX nor OpenCV.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from masktrack_jax.evaluation.score import score_files as evaluate
    from masktrack_jax.inference.load import load_segmenter
    from masktrack_jax.inference.segmenter import VideoSegmenter

__version__ = "0.1.0"
__all__ = ["VideoSegmenter", "__version__", "evaluate", "load_segmenter"]

_PLACES = {
    "VideoSegmenter": ("inference.segmenter", "VideoSegmenter"),
    "evaluate": ("evaluation.score", "score_files"),
    "load_segmenter": ("inference.load", "load_segmenter"),
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
