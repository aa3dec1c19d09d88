"""Variants compared by benchmarks/tracking.py: heads with their losses, and association rules."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from masktrack_jax.config.base import base_config
from masktrack_jax.config.presets import recommended_association


class HeadRecipe(NamedTuple):
    """Values of `config.model.track_head` and `config.train.track`, and a factor of the training steps."""

    track_head: dict[str, Any]
    track: dict[str, Any]
    step_factor: int = 1


FC, CONV = {"kind": "fc", "features": 256}, {"kind": "conv", "features": 256}
HEADS = {
    "fc, softmax": HeadRecipe(FC, {"loss": "softmax"}),
    # This head is cheaper: five times the steps take the same time.
    "fc, softmax, 5 × steps": HeadRecipe(FC, {"loss": "softmax"}, 5),
    "conv, triplet": HeadRecipe(CONV, {"loss": "triplet"}),
    "conv, contrastive": HeadRecipe(CONV, {"loss": "contrastive"}),
    "conv, quasi-dense": HeadRecipe(CONV, {"loss": "quasi_dense"}),
}


@dataclass(frozen=True)
class Variant:
    """A head of `HEADS` (None: no learned cue) with values of `config.inference`."""

    head: str | None
    association: dict[str, Any] = field(default_factory=dict)
    tracks: dict[str, Any] = field(default_factory=dict)


# Only the learned cue within a class, as in the trackers that introduced these losses; unlimited memory.
PLAIN = {"iou_weight": 0.0, "label_weight": 0.0, "same_label": True, "new_score": 0.3, "frames_retained": 0}
COSINE = PLAIN | {"similarity": "cosine", "assignment": "hungarian", "new_threshold": 0.5}
# QDTrack's tracker, as far as our options reproduce it: a short memory, and no duplicates.
BISOFTMAX = PLAIN | {"similarity": "bisoftmax", "assignment": "in_turn", "new_threshold": 0.5}
BISOFTMAX |= {"memory": "average", "frames_retained": 10, "duplicate_iou": 0.7}
OVERLAP = {"similarity": "none", "assignment": "hungarian", "same_label": True, "label_weight": 0.0}
BEST = recommended_association(base_config()).inference
RECOMMENDED = (BEST.association.to_dict(), BEST.tracks.to_dict())
VARIANTS = {
    "paper": Variant("fc, softmax"),
    "paper, 5 × steps": Variant("fc, softmax, 5 × steps"),
    "paper, nothing forgotten": Variant("fc, softmax", {"frames_retained": 0}),
    "paper, no learned cue": Variant("fc, softmax", {"use_embedding": False}),
    "overlap, Hungarian": Variant(None, OVERLAP | {"new_threshold": 0.2, "new_score": 0.3}),
    "triplet, cosine": Variant("conv, triplet", COSINE),
    "contrastive, cosine": Variant("conv, contrastive", COSINE),
    "quasi-dense, bi-softmax": Variant("conv, quasi-dense", BISOFTMAX),
    "paper's head, recommended (t 0.3)": Variant(
        "fc, softmax", RECOMMENDED[0] | {"new_threshold": 0.3}, RECOMMENDED[1]
    ),
    "triplet, recommended": Variant("conv, triplet", *RECOMMENDED),
    "quasi-dense, recommended": Variant("conv, quasi-dense", *RECOMMENDED),
    "contrastive, recommended": Variant("conv, contrastive", *RECOMMENDED),
}
# Ablations: the recommendation without one of its values.
for name, values in {
    "last look only": {"memory": "last"},
    "greedy": {"assignment": "greedy"},
    "second choices": {"second_choice": True},
    "the paper's weights": {"iou_weight": 2.0, "label_weight": 10.0},
    "duplicates": {"duplicate_iou": 1.0},
    "starts of any score": {"new_score": 0.0},
    "a second pass for low scores": {"high_score": 0.3},
}.items():
    VARIANTS[f"… with {name}"] = Variant("conv, contrastive", RECOMMENDED[0] | values, RECOMMENDED[1])
for name, values in {
    "majority and mean": {"label": "majority", "score": "mean"},
    "presence in the score": {"score": "presence"},
    "gaps of 2 filled": {"fill_gaps": 2},
}.items():
    VARIANTS[f"… with {name}"] = Variant("conv, contrastive", RECOMMENDED[0], RECOMMENDED[1] | values)
