"""MaskTrack R-CNN: the detector as a composition of its parts."""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped
from ml_collections import ConfigDict, FrozenConfigDict

from masktrack_jax.models import box_head, chunked, mask_head, rpn_head
from masktrack_jax.models.forms import forms
from masktrack_jax.models.fpn import FPN
from masktrack_jax.models.resnet import ResNet
from masktrack_jax.models.track_head import build_track_head
from masktrack_jax.ops.anchors import Anchors, anchor_grid
from masktrack_jax.ops.roi_align import roi_align
from masktrack_jax.ops.roi_samples import RoIAlignOptions

MEAN = (123.675, 116.28, 103.53)  # red, green and blue of ImageNet
STD = (58.395, 57.12, 57.375)
POOLED_LEVELS = 4  # levels of the pyramid for RoI features; P6 is only for proposals

Images = Shaped[Array | np.ndarray, "batch height width 3"]
ImageSizes = Int[Array | np.ndarray, "batch 2"]  # height, width without padding
Pyramid = tuple[Float[Array, "batch _rows _columns channels"], ...]


def build_model(config: ConfigDict, num_classes: int) -> "MaskTrackRCNN":
    """The network of a whole config."""
    return MaskTrackRCNN(FrozenConfigDict(config.model), num_classes)


class Detections(NamedTuple):
    """Padded detections of a batch, by descending score; boxes in pixels of the resized frame."""

    boxes: Float[Array, "batch detections 4"]
    scores: Float[Array, "batch detections"]
    labels: Int[Array, "batch detections"]
    probabilities: Float[Array, "batch detections classes"]
    valid: Bool[Array, "batch detections"]
    masks: Float[Array, "batch detections 28 28"]  # probabilities of the detected class
    embeddings: Float[Array, "batch detections embedding"]
    cut: Bool[Array, " batch"]  # whether these are only the best of more detections


def normalise(
    images: Images, image_sizes: ImageSizes, dtype: DTypeLike = jnp.float32
) -> Float[Array, "batch height width 3"]:
    """Network input from RGB of 0 to 255; zero outside `image_sizes`."""
    x = (images.astype(jnp.float32) - jnp.asarray(MEAN)) / jnp.asarray(STD)
    rows = jnp.arange(images.shape[1])[None] < image_sizes[:, :1]
    columns = jnp.arange(images.shape[2])[None] < image_sizes[:, 1:]
    return jnp.where((rows[:, :, None] & columns[:, None])[..., None], x, 0).astype(dtype)


class MaskTrackRCNN(nn.Module):
    """The network. `config` is the frozen `model` section of a config.

    Inference calls `detect`. Training composes the other methods (see training/objective.py).
    """

    config: FrozenConfigDict
    num_classes: int

    def setup(self) -> None:
        c = self.config
        self.backbone = ResNet(**c.backbone, remat=c.remat, dtype=self.dtype)
        if c.neck == "fpn":
            self.fpn = FPN(**c.fpn, dtype=self.dtype)
        self.rpn_head = rpn_head.RPNHead(c.rpn_head.channels, self.anchors_per_cell, dtype=self.dtype)
        self.box_head = box_head.BoxHead(self.num_classes, **c.box_head, dtype=self.dtype)
        self.mask_head = mask_head.MaskHead(self.num_classes, **c.mask_head, dtype=self.dtype)
        self.track_head = build_track_head(c.track_head, self.dtype)

    @property
    def dtype(self) -> jnp.dtype:
        """The floating-point type of computations; parameters are float32."""
        return jnp.dtype(self.config.dtype)

    @property
    def anchors_per_cell(self) -> int:
        """The number of anchors per cell of a level."""
        return len(self.config.anchors.sizes) * len(self.config.anchors.ratios)

    @property
    def clip_margin(self) -> float:
        """The `margin` of `boxes.clip`."""
        return 1.0 if self.config.pixel_boxes else 0.0

    def detect(self, images: Images, image_sizes: ImageSizes) -> Detections:
        """Detections in padded RGB images of 0 to 255, whose heights and widths are multiples of 32."""
        features = self.features(images, image_sizes)
        anchors = self.anchors(*images.shape[1:3])
        proposals, valid = self.propose(*self.rpn_head(features), anchors, image_sizes)
        logits, deltas = self.classify(self.pool(features, proposals, valid, box_head.BINS), len(images))
        options = {**self.config.detections, "clip_margin": self.clip_margin}
        found = box_head.select_detections(logits, deltas, proposals, valid, image_sizes, **options)
        masks, embeddings = self.masks_and_embeddings(features, found.boxes, found.labels, found.valid)
        return Detections(**found._asdict(), masks=masks, embeddings=embeddings)

    def features(self, images: Images, image_sizes: ImageSizes) -> Pyramid:
        """The levels P2–P6 of the pyramid, or without a neck only the last level of the backbone, C5."""
        levels = self.backbone(normalise(images, image_sizes, self.dtype))
        return self.fpn(levels) if self.config.neck == "fpn" else levels[-1:]

    def anchors(self, height: int, width: int) -> Anchors:
        """Anchors of images padded to `height` × `width`."""
        return anchor_grid(height, width, **self.config.anchors)

    def propose(
        self,
        logits: Float[Array, "batch anchors"],
        deltas: Float[Array, "batch cells deltas"],
        anchors: Anchors,
        image_sizes: ImageSizes,
    ) -> tuple[Float[Array, "batch proposals 4"], Bool[Array, "batch proposals"]]:
        """Proposals and their validity from the RPN's outputs."""
        options = {**self.config.proposals, "clip_margin": self.clip_margin}
        return jax.vmap(
            lambda logits, deltas, size: rpn_head.select_proposals(
                logits, deltas, anchors, anchors.valid(size), size, **options
            )
        )(logits, deltas, image_sizes)

    def pool(
        self,
        features: Pyramid,
        boxes: Float[Array, "groups boxes 4"],
        valid: Bool[Array, "groups boxes"],
        bins: int,
        images: Int[Array, "groups boxes"] | None = None,
    ) -> Float[Array, "groups*boxes {bins} {bins} channels"]:
        """RoI features of boxes from the levels P2–P5, or from C5.

        `images`: the index of each box's image, see `roi_align`.
        """
        levels = features[:POOLED_LEVELS]
        strides = self.config.anchors.strides[: len(levels)]
        options = RoIAlignOptions(**self.config.roi_align)
        form = forms().roi
        roi = roi_align(levels, strides, boxes, valid, options, bins=bins, images=images, form=form)
        return roi.reshape(-1, *roi.shape[2:])

    def classify(
        self, roi: Float[Array, "rois 7 7 channels"], batch: int
    ) -> tuple[Float[Array, "{batch} boxes logits"], Float[Array, "{batch} boxes classes 4"]]:
        """Class logits, background last, and deltas of the RoI features of `batch` images."""
        logits, deltas = self.box_head(roi)
        return logits.reshape(batch, -1, *logits.shape[1:]), deltas.reshape(batch, -1, *deltas.shape[1:])

    def embed(
        self, roi: Float[Array, "rois 7 7 channels"], batch: int
    ) -> Float[Array, "{batch} boxes embedding"]:
        """Embeddings of the RoI features of `batch` images."""
        embeddings = self.track_head(roi)
        return embeddings.reshape(batch, -1, embeddings.shape[-1])

    def mask_logits(
        self,
        features: Pyramid,
        boxes: Float[Array, "batch boxes 4"],
        valid: Bool[Array, "batch boxes"],
        labels: Int[Array, "batch boxes"],
    ) -> Float[Array, "batch boxes 28 28"]:
        """Mask logits of the valid boxes, each for its own label; the others are arbitrary."""
        roi = self.pool(features, boxes, valid, mask_head.BINS)
        logits = chunked.mask_logits(self.mask_head, roi, labels.reshape(-1), valid.reshape(-1))
        return logits.reshape(*labels.shape, *logits.shape[1:])

    def masks_and_embeddings(
        self,
        features: Pyramid,
        boxes: Float[Array, "batch boxes 4"],
        labels: Int[Array, "batch boxes"],
        valid: Bool[Array, "batch boxes"],
    ) -> tuple[Float[Array, "batch boxes 28 28"], Float[Array, "batch boxes embedding"]]:
        """Mask probabilities and embeddings of the valid boxes; zeros for the others."""
        heads = self.mask_head, self.track_head
        return chunked.masks_and_embeddings(partial(self.pool, features), heads, boxes, labels, valid)

    def call_parts(self, images: Images, image_sizes: ImageSizes) -> None:
        """Call every part once to create its parameters, without the operations between the parts."""
        features = self.features(images, image_sizes)
        self.rpn_head(features)
        bins = box_head.BINS, mask_head.BINS
        small, large = (jnp.zeros((1, n, n, features[0].shape[-1]), self.dtype) for n in bins)
        self.box_head(small)
        self.mask_head(large, jnp.zeros(1, jnp.int32))
        self.track_head(small)

    @nn.nowrap
    def init_variables(self, key: PRNGKeyArray) -> dict[str, Any]:
        """Initial variables {"params", "batch_stats"?}, which do not depend on the size of images."""
        images, sizes = jnp.zeros((1, 64, 64, 3), jnp.uint8), jnp.array([[64, 64]])
        return jax.jit(partial(self.init, method="call_parts"))(key, images, sizes)
