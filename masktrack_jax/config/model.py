"""The `model` section: the network and its detections."""

# ruff: noqa: RUF009 – `option` makes a dataclass field, and the sections are frozen

from collections.abc import Collection
from dataclasses import dataclass

from ml_collections import ConfigDict

from masktrack_jax.runtime.options import (
    Check,
    at_least,
    between,
    check_options,
    check_types,
    one_of,
    one_of_table,
    option,
    positive,
    positive_numbers,
    require,
)

LEVELS = {"fpn": 5, "none": 1}  # feature levels of each neck: P2 to P6, or C5
DTYPES = ("float32", "bfloat16", "float64")  # float64 needs JAX_ENABLE_X64=1, and is not for training

# These modules load JAX, so they are imported only when a value is checked.


def _depths() -> Collection[int]:
    from masktrack_jax.models.resnet import DEPTHS

    return sorted(DEPTHS)


def _norms() -> Collection[str]:
    from masktrack_jax.models.layers import NORMS

    return sorted(NORMS)


def _track_heads() -> Collection[str]:
    from masktrack_jax.models.track_head import HEADS

    return sorted(HEADS)


norm_or_none = one_of_table(lambda: ("none", *_norms()))
some_positive = Check(
    lambda values: len(values) > 0 and positive_numbers.passes(values), "give at least one positive number"
)
grouped = Check(  # group norm has groups of 8 channels, and 32 groups from 256 channels on
    lambda width: width > 0 and width % (8 if width <= 256 else 32) == 0,
    "use a multiple of 8, above 256 of 32",
)


@dataclass(frozen=True)
class BackboneOptions:
    """A ResNet."""

    depth: int = option(50, "layers: 18, 34, 50 or 101", one_of_table(_depths))
    width: int = option(64, "channels of its first convolution", grouped)
    norm: str = option("frozen_bn", "normalisation: frozen_bn or group", one_of_table(_norms))
    frozen_stages: int = option(
        1, "frozen stages, counted from the first; 1 or more also freezes the stem", between(0, 4)
    )
    stride_in_1x1: bool = option(False, "stride in a block's 1×1 convolution, not in its 3×3")


@dataclass(frozen=True)
class FPNOptions:
    """The feature pyramid."""

    channels: int = option(256, "channels of each level", grouped)
    norm: str = option("none", "normalisation: none, frozen_bn or group", norm_or_none)


@dataclass(frozen=True)
class AnchorOptions:
    """The anchors of each cell: sides are stride · scale · size."""

    strides: tuple[int, ...] = option((4, 8, 16, 32, 64), "stride of each level in pixels", positive_numbers)
    scale: float = option(8.0, "side of an anchor, in strides", positive)
    sizes: tuple[float, ...] = option((1.0,), "factors of the side", some_positive)
    ratios: tuple[float, ...] = option(
        (0.5, 1.0, 2.0), "height divided by width, of each shape", some_positive
    )
    centre: float = option(0.0, "position in the cell: 0 its corner, 0.5 its centre")
    rounded: bool = option(False, "round the corners to whole pixels")


@dataclass(frozen=True)
class RPNHeadOptions:
    """The head of the region proposal network."""

    channels: int = option(256, "channels of its convolution", positive)


@dataclass(frozen=True)
class ProposalOptions:
    """Which anchors become proposals."""

    pre_nms: int = option(200, "anchors of highest score kept on each level before NMS", positive)
    post_nms: int = option(200, "proposals of an image", positive)
    nms_iou: float = option(0.7, "IoU above which a proposal suppresses another")


@dataclass(frozen=True)
class RoIAlignOptions:
    """How the features of a box are sampled."""

    finest_scale: float = option(56.0, "side in pixels of boxes that use the finest level", positive)
    sampling: int = option(0, "samples of a bin along each axis; 0: by the size of the box", at_least(0))
    aligned: bool = option(True, "pixel centres at half-integer coordinates")
    min_size: float = option(0.0, "smallest side of a box, in cells; smaller boxes grow to it", at_least(0))


@dataclass(frozen=True)
class BoxHeadOptions:
    """The head that classifies and refines boxes."""

    features: int = option(1024, "units of its fully connected layers", positive)
    convs: int = option(0, "convolutions before them", at_least(0))
    norm: str = option("none", "normalisation of the convolutions: none, frozen_bn or group", norm_or_none)


@dataclass(frozen=True)
class MaskHeadOptions:
    """The head that segments a box."""

    convs: int = option(4, "convolutions", at_least(0))
    channels: int = option(256, "channels of each convolution", grouped)
    norm: str = option("none", "normalisation: none, frozen_bn or group", norm_or_none)


@dataclass(frozen=True)
class TrackHeadOptions:
    """The head that embeds a box for association; its kinds are in models/track_head.py."""

    kind: str = option("fc", "architecture, see models/track_head.py", one_of_table(_track_heads))
    features: int = option(1024, "length of an embedding", positive)
    relu_last: bool = option(True, "ReLU after the last layer (kind fc only)")
    init_std: float = option(
        0.0, "standard deviation of the initial weights; 0: PyTorch's default (kind fc only)", at_least(0)
    )


@dataclass(frozen=True)
class DetectionOptions:
    """Which classified boxes become detections."""

    score_threshold: float = option(0.01, "lower scores are dropped")
    nms_iou: float = option(0.5, "IoU above which a detection suppresses another of its class")
    max_detections: int = option(100, "detections of a frame", positive)


@dataclass(frozen=True)
class ModelOptions:
    """The network: R50-FPN with mmtracking's values."""

    dtype: str = option(
        "float32", "floating-point type of computations; parameters are float32", one_of(*DTYPES[:2])
    )
    remat: bool = option(False, "recompute the backbone's activations for the gradient: less memory")
    pixel_boxes: bool = option(
        False, "clip boxes and crop masks by whole pixels, as in mmdet before version 2"
    )
    backbone: BackboneOptions = option(BackboneOptions())
    neck: str = option("fpn", "neck; none: the heads use the backbone's last level", one_of(*LEVELS))
    fpn: FPNOptions = option(FPNOptions())
    anchors: AnchorOptions = option(AnchorOptions())
    rpn_head: RPNHeadOptions = option(RPNHeadOptions())
    proposals: ProposalOptions = option(ProposalOptions())
    roi_align: RoIAlignOptions = option(RoIAlignOptions())
    box_head: BoxHeadOptions = option(BoxHeadOptions())
    mask_head: MaskHeadOptions = option(MaskHeadOptions())
    track_head: TrackHeadOptions = option(TrackHeadOptions())
    detections: DetectionOptions = option(DetectionOptions())


def validate_model(model: ConfigDict) -> None:
    """Raise a UserError that names a key of the `model` section with an invalid value, if any."""
    check_options(ModelOptions(), model, "config.model.")
    check_types(ModelOptions(), model, "config.model.")
    levels = LEVELS[model.neck]
    one_each = Check(lambda strides: len(strides) == levels, f"give {levels}, one for each level")
    require(model.anchors.strides, one_each, "config.model.anchors.strides")


def validate_dtype(dtype: str, wide: bool) -> None:
    """Raise a UserError unless the network can compute in `dtype`; `wide`: whether JAX has float64."""
    require(dtype, one_of(*DTYPES), "config.model.dtype")
    available = Check(lambda dtype: dtype != "float64" or wide, "set JAX_ENABLE_X64=1 for it")
    require(dtype, available, "config.model.dtype")
