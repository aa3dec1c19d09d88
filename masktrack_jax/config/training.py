"""The `train` and `optimizer` sections: losses, samples, length of the run, and the optimiser."""

# ruff: noqa: RUF009 – `option` makes a dataclass field, and the sections are frozen

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from ml_collections import ConfigDict

from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.options import (
    Check,
    at_least,
    between,
    one_of,
    one_of_table,
    option,
    positive,
    require,
)

finite = Check(lambda value: 0 <= value < math.inf, "must be 0 or more, and finite")
fractions = Check(lambda values: all(0 <= x <= 1 for x in values), "give numbers between 0 and 1")

PARTS = ("backbone", "fpn", "rpn_head", "box_head", "mask_head", "track_head")


def _losses() -> Collection[str]:
    from masktrack_jax.losses.tracking import LOSSES  # loads JAX

    return sorted(LOSSES)


@dataclass(frozen=True)
class LossWeights:
    """The weight of each loss."""

    rpn_cls: float = option(1.0, "weight of the proposals' classification loss", finite)
    rpn_box: float = option(1.0, "weight of the proposals' box loss", finite)
    cls: float = option(1.0, "weight of the box head's classification loss", finite)
    box: float = option(1.0, "weight of the box head's box loss", finite)
    mask: float = option(1.0, "weight of the mask loss", finite)
    match: float = option(1.0, "weight of the tracking loss, in addition to its own", finite)
    match_cosine: float = option(1.0, "weight of the auxiliary loss of quasi_dense", finite)


@dataclass(frozen=True)
class Sampling:
    """How boxes are sampled for a loss, and which of them are positive."""

    samples: int = option(comment="boxes of an image", check=positive)
    positive_fraction: float = option(comment="largest fraction of positives", check=between(0, 1))
    positive_iou: float = option(comment="IoU with an object at which a box becomes positive")
    negative_iou: float = option(comment="IoU with every object below which a box is negative")
    min_positive_iou: float = option(comment="IoU at which an object's best box becomes positive")


@dataclass(frozen=True)
class RPNSampling(Sampling):
    """The anchors that train the region proposal network."""

    inside_only: bool = option(False, "use only anchors inside the image")
    beta: float = option(0.0, "beta of the smooth L1 box loss; 0: L1", at_least(0))


@dataclass(frozen=True)
class RoISampling(Sampling):
    """The proposals that train the box and mask heads."""

    beta: float = option(0.0, "beta of the smooth L1 box loss; 0: L1", at_least(0))


@dataclass(frozen=True)
class SoftmaxOptions:
    """The paper's loss."""

    over: str = option(
        "matched", "boxes whose number divides the loss of an image", one_of("matched", "positives")
    )


@dataclass(frozen=True)
class TripletOptions:
    """The batch-hard triplet loss."""

    margin: float = option(0.3, "distance by which other objects must be farther", at_least(0))
    soft: bool = option(False, "softplus instead of a margin")
    unit_length: bool = option(False, "compare embeddings divided by their lengths")


@dataclass(frozen=True)
class ContrastiveOptions:
    """The pairwise contrastive loss."""

    margin: float = option(1.0, "distance above which different objects add no loss", at_least(0))
    unit_length: bool = option(False, "compare embeddings divided by their lengths")


@dataclass(frozen=True)
class QuasiDenseOptions:
    """The multi-positive contrastive loss of QDTrack."""

    weight: float = option(0.25, "weight of the loss", finite)
    cosine_margin: float = option(0.1, "cosine below which different objects add no loss")
    negatives_per_positive: int = option(
        3, "hardest pairs of the auxiliary loss for each positive", at_least(0)
    )


@dataclass(frozen=True)
class TrackLossOptions:
    """The tracking losses with their published values; see losses/tracking.py."""

    loss: str = option("softmax", "tracking loss, see losses/tracking.py", one_of_table(_losses))
    softmax: SoftmaxOptions = option(SoftmaxOptions())
    triplet: TripletOptions = option(TripletOptions())
    contrastive: ContrastiveOptions = option(ContrastiveOptions())
    quasi_dense: QuasiDenseOptions = option(QuasiDenseOptions())
    roi: Sampling = option(
        Sampling(
            samples=256, positive_fraction=0.5, positive_iou=0.7, negative_iou=0.3, min_positive_iou=0.7
        ),
    )


def _unknown_parts(only: str) -> set[str]:
    return set(only.split(",")) - set(PARTS) if only else set()


parts_of_the_network = Check(
    lambda only: not _unknown_parts(only),
    f"use parts of the network, separated by commas: {', '.join(PARTS)}",
)


@dataclass(frozen=True)
class TrainOptions:
    """The length of the run, its losses, and the checkpoints it keeps."""

    batch_size: int = option(8, "pairs of a step, over all devices", positive)
    accumulate: int = option(1, "parts of a device's batch, computed in turn to save memory", positive)
    epochs: float = option(12.0, "passes over the labelled frames", finite)
    steps: int = option(0, "steps of the run; 0: by epochs", at_least(0))
    loss_weights: LossWeights = option(LossWeights())
    rpn: RPNSampling = option(
        RPNSampling(
            samples=64, positive_fraction=0.5, positive_iou=0.7, negative_iou=0.3, min_positive_iou=0.3
        ),
    )
    roi: RoISampling = option(
        RoISampling(
            samples=128, positive_fraction=0.25, positive_iou=0.5, negative_iou=0.5, min_positive_iou=0.5
        ),
    )
    track: TrackLossOptions = option(TrackLossOptions())
    only: str = option(
        "", "parts of the network to train, such as box_head,track_head; empty: all", parts_of_the_network
    )
    checkpoint_every: int = option(1000, "steps between checkpoints", positive)
    log_every: int = option(50, "steps between rows of metrics.jsonl", positive)
    on_nan: str = option(
        "stop", "if a loss or gradient is not finite; skip: no update", one_of("stop", "skip")
    )
    keep_last: int = option(2, "checkpoints to keep", positive)
    evaluate_every: int = option(0, "steps between evaluations; 0: once, after training", at_least(0))
    keep_best: bool = option(True, "keep the parameters of the highest AP in WORKDIR/best (evaluate_every)")
    init_from: str = option("", "checkpoint with the initial parameters")


@dataclass(frozen=True)
class OptimizerOptions:
    """The optimiser, and the learning rate by step."""

    name: str = option("sgd", "optimiser", one_of("sgd", "adamw"))
    learning_rate: float = option(0.00125, "peak learning rate; the default is for 8 pairs per step", finite)
    momentum: float = option(0.9, "momentum of sgd", between(0, 1))
    weight_decay: float = option(1e-4, "applies to all parameters (sgd) or to matrices only (adamw)", finite)
    clip_norm: float = option(35.0, "largest norm of the gradient", positive)
    schedule: str = option("steps", "decay of the learning rate", one_of("steps", "cosine"))
    decay_at: tuple[float, ...] = option(
        (8 / 12, 11 / 12), "fractions of the run at which it drops to a tenth", fractions
    )
    warmup_steps: int = option(500, "steps until the peak learning rate", at_least(0))
    warmup_factor: float = option(1 / 3, "fraction of the peak at the first step", finite)


def replace_length(train: ConfigDict, given: Collection[str]) -> Iterator[str]:
    """Let `train.epochs` given on the command line replace the `train.steps` that the config file sets.

    given: the dotted keys of the whole config that were given. Yields a line if it does. Raises a UserError
    if both were given.
    """
    if "train.epochs" in given and train.steps > 0:
        if "train.steps" in given:
            raise UserError(
                "config.train.epochs: has no effect beside config.train.steps; leave one of them out"
            )
        yield f"config.train.steps={train.steps} gives way to config.train.epochs"
        train.steps = 0


def check_effects(config: ConfigDict, given: Mapping[str, object]) -> None:
    """Raise a UserError for a key of `train` or `optimizer` that was given but that nothing reads.

    given: the dotted keys of the whole config that were given, with their values.
    """
    train, optimizer = config.train, config.optimizer
    needs = [
        (f"train.track.{loss}.", train.track.loss == loss, f"config.train.track.loss={loss}")
        for loss in ("softmax", "triplet", "contrastive", "quasi_dense")
    ]
    needs += [
        ("train.loss_weights.match_cosine", *needs[-1][1:]),
        ("train.keep_best", train.evaluate_every > 0, "config.train.evaluate_every above 0"),
        ("optimizer.momentum", optimizer.name == "sgd", "config.optimizer.name=sgd"),
        ("optimizer.decay_at", optimizer.schedule == "steps", "config.optimizer.schedule=steps"),
        ("optimizer.warmup_factor", optimizer.warmup_steps > 0, "config.optimizer.warmup_steps above 0"),
    ]
    for key, value in given.items():
        for start, has_effect, cure in needs:
            if key.startswith(start) and value is not False and not has_effect:
                raise UserError(f"config.{key}: has no effect without {cure}; give that too, or leave it out")


def validate_training(train: ConfigDict) -> None:
    """Raise a UserError if keys of the `train` section do not fit together."""
    length = Check(lambda epochs: train.steps > 0 or epochs > 0, "give a positive number, or train.steps")
    require(train.epochs, length, "config.train.epochs")
    for part, drawn in (("rpn", train.rpn), ("roi", train.roi), ("track.roi", train.track.roi)):
        key = f"config.train.{part}.positive_fraction"
        require(drawn.positive_fraction, _room_for_a_positive(drawn.samples), key)


def _room_for_a_positive(samples: int) -> Check:
    return Check(lambda fraction: samples * fraction >= 1, "leaves no place for a positive")
