"""The `inference` section of a config: what may change without training anew. Needs no JAX."""

from dataclasses import asdict

from masktrack_jax.runtime.errors import UserError
from masktrack_jax.tracking.assignment import ASSIGNMENTS
from masktrack_jax.tracking.association import AssociationOptions
from masktrack_jax.tracking.memory import MEMORIES
from masktrack_jax.tracking.similarity import SIMILARITIES
from masktrack_jax.tracking.tracks import LABELS, SCORES, TrackOptions


def inference_config():
    return {
        "scale": (640, 360),
        "frames_per_call": 4,
        "order_when_cut": "class",  # of detections, where there were more than max_detections; or "score"
        "association": asdict(AssociationOptions()),  # see there
        "tracks": asdict(TrackOptions()),
    }


def validate_inference(inference):
    """Raise a UserError naming the key of config.inference whose value cannot be used, if there is one."""
    association, tracks = inference.association, inference.tracks
    choices = {
        "order_when_cut": (inference.order_when_cut, ("class", "score")),
        "association.similarity": (association.similarity, tuple(SIMILARITIES)),
        "association.assignment": (association.assignment, tuple(ASSIGNMENTS)),
        "association.memory": (association.memory, tuple(MEMORIES)),
        "association.bank_compare": (association.bank_compare, ("mean", "max")),
        "tracks.label": (tracks.label, tuple(LABELS)),
        "tracks.score": (tracks.score, tuple(SCORES)),
    }
    for key, (value, known) in choices.items():
        check(value in known, f"inference.{key}", f"use one of {known}")
    check(inference.frames_per_call > 0, "inference.frames_per_call", "must be positive")
    check(association.bank_size > 0, "inference.association.bank_size", "must be positive")
    check(0 < association.average_rate <= 1, "inference.association.average_rate", "must be in (0, 1]")
    for key in ("frames_retained", "iou_frames"):
        check(association[key] >= 0, f"inference.association.{key}", "use 0 or a number of frames")
    check(tracks.fill_gaps >= 0, "inference.tracks.fill_gaps", "use 0 or a number of frames")
    for key in ("score_weight", "iou_weight", "label_weight"):
        check(association[key] >= 0, f"inference.association.{key}", "must not be negative")
    for key in ("high_score", "new_score", "duplicate_iou"):
        check(0 <= association[key] <= 1, f"inference.association.{key}", "must be in [0, 1]")


DTYPES = ("float32", "bfloat16", "float64")


def validate_dtype(dtype, wide):
    """Raise a UserError unless the network can compute in `dtype`; `wide`: whether JAX has float64."""
    check(dtype in DTYPES, "model.dtype", f"use one of {DTYPES}")
    check(dtype != "float64" or wide, "model.dtype", "float64 needs JAX_ENABLE_X64=1 in the environment")


def check(good, key, problem):
    """Raise a UserError about a key of the config unless it is `good`."""
    if not good:
        raise UserError(f"config.{key}: {problem}")
