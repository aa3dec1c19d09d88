"""The `inference` section: settings that can change without training again."""

# ruff: noqa: RUF009 – `option` makes a dataclass field, and the sections are frozen

from collections.abc import Mapping
from dataclasses import dataclass

from ml_collections import ConfigDict

from masktrack_jax.runtime.options import Check, check_options, check_types, one_of, option, positive, require
from masktrack_jax.tracking.assignment import ASSIGNMENTS
from masktrack_jax.tracking.memory import MEMORIES
from masktrack_jax.tracking.options import AssociationOptions
from masktrack_jax.tracking.similarity import SIMILARITIES
from masktrack_jax.tracking.tracks import TrackOptions

RULES: dict[str, Mapping[str, object]] = {  # by key of the `association` section
    "similarity": SIMILARITIES,
    "assignment": ASSIGNMENTS,
    "memory": MEMORIES,
}


a_long_and_a_short_edge = Check(
    lambda scale: len(scale) == 2 and scale[0] >= scale[1] >= 1,
    "give (long edge, short edge), the long edge first",
)


@dataclass(frozen=True)
class InferenceOptions:
    """How frames become tracks."""

    scale: tuple[int, int] = option(
        (640, 360), "(long edge, short edge) of a frame in pixels", a_long_and_a_short_edge
    )
    frames_per_call: int = option(4, "frames in one call of the network", positive)
    order_when_cut: str = option(
        "class",
        "order of detections if a frame has more than max_detections",
        one_of("class", "score"),
    )
    association: AssociationOptions = option(AssociationOptions())
    tracks: TrackOptions = option(TrackOptions())


def validate_inference(inference: ConfigDict) -> None:
    """Raise a UserError that names a key of the `inference` section with an invalid value, if any."""
    check_options(InferenceOptions(), inference, "config.inference.")
    check_types(InferenceOptions(), inference, "config.inference.")
    for key, rules in RULES.items():
        require(inference.association[key], one_of(*rules), f"config.inference.association.{key}")
