"""MaskTrack R-CNN: the detector as a composition of its parts."""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import FrozenConfigDict

from masktrack_jax.models import box_head, rpn_head
from masktrack_jax.models.fpn import FPN
from masktrack_jax.models.layers import few_products
from masktrack_jax.models.mask_head import MaskHead
from masktrack_jax.models.resnet import ResNet
from masktrack_jax.models.track_head import build_track_head
from masktrack_jax.ops.anchors import anchor_grid, cell_origins
from masktrack_jax.ops.roi_align import roi_align
from masktrack_jax.ops.valid_rows import map_present, map_valid

MEAN = (123.675, 116.28, 103.53)  # of ImageNet's red, green, blue
STD = (58.395, 57.12, 57.375)
PAD_MULTIPLE = 32  # the coarsest stride of the backbone
POOLED_LEVELS = 4  # of the pyramid: P6 is for proposals only

# Detections get their masks and embeddings in chunks, the last ones small: of at least LEAST_CHUNK, since a
# product of few rows is slow, and in all at most MOST_CHUNKS large ones, since a GPU waits for each.
LEAST_CHUNK, MOST_CHUNKS, LARGER = 4, 25, 4
LEAST_TRAINED, MOST_TRAINED_CHUNKS = 8, 8  # of the positive RoIs that the mask head learns from


def build_model(config, num_classes):
    """The network of a whole config."""
    return MaskTrackRCNN(FrozenConfigDict(config.model), num_classes)


class Detections(NamedTuple):
    """Padded detections of a batch, by falling score; boxes in pixels of the resized frame."""

    boxes: jnp.ndarray  # (B, D, 4)
    scores: jnp.ndarray  # (B, D)
    labels: jnp.ndarray  # (B, D) int32
    probabilities: jnp.ndarray  # (B, D, K) of the classes
    valid: jnp.ndarray  # (B, D) bool
    masks: jnp.ndarray  # (B, D, 28, 28) probabilities of the detected class
    embeddings: jnp.ndarray  # (B, D, E)
    cut: jnp.ndarray  # (B,) bool: there were more, of which these are the best D


def normalise(images, image_sizes, dtype=jnp.float32):
    """Network input (B, H, W, 3) from RGB of 0 to 255; zero outside `image_sizes` (B, 2)."""
    x = (images.astype(jnp.float32) - jnp.asarray(MEAN)) / jnp.asarray(STD)
    rows = jnp.arange(images.shape[1])[None] < image_sizes[:, :1]
    columns = jnp.arange(images.shape[2])[None] < image_sizes[:, 1:]
    return jnp.where((rows[:, :, None] & columns[:, None])[..., None], x, 0).astype(dtype)


class Anchors(NamedTuple):
    """Constants of a padded image size: boxes (A, 4), levels (A,), cell origins (A, 2)."""

    boxes: Any
    levels: Any
    origins: Any

    def valid(self, image_size):
        """Anchors (A,) whose cell lies in the image padded to a multiple of 32, not in a bucket's rest."""
        return jnp.all(self.origins < -(-image_size // PAD_MULTIPLE) * PAD_MULTIPLE, axis=-1)

    def inside(self, image_size):
        """Anchors (A,) that lie wholly in the image."""
        return jnp.all((self.boxes[:, :2] >= 0) & (self.boxes[:, 2:] <= image_size[::-1]), axis=-1)


class MaskTrackRCNN(nn.Module):
    """The network. `config` is the `model` section of a config, frozen; arrays in, arrays out.

    `detect` is what inference runs. Training composes the other methods (see training/objective.py).
    """

    config: Any
    num_classes: int

    def setup(self):
        c = self.config
        self.backbone = ResNet(**c.backbone, remat=c.remat, dtype=self.dtype)
        if c.neck == "fpn":
            self.fpn = FPN(**c.fpn, dtype=self.dtype)
        self.rpn_head = rpn_head.RPNHead(c.rpn_head.channels, self.anchors_per_cell, dtype=self.dtype)
        self.box_head = box_head.BoxHead(self.num_classes, **c.box_head, dtype=self.dtype)
        self.mask_head = MaskHead(self.num_classes, **c.mask_head, dtype=self.dtype)
        self.track_head = build_track_head(c.track_head, self.dtype)

    @property
    def dtype(self):
        return jnp.dtype(self.config.dtype)

    @property
    def anchors_per_cell(self):
        """How many anchors belong to a cell of a level."""
        return len(self.config.anchors.sizes) * len(self.config.anchors.ratios)

    def features(self, images, image_sizes):
        """Levels of RGB images (B, H, W, 3) of 0 to 255, H and W multiples of 32.

        The pyramid's P2–P6, or without a neck the backbone's last one, C5.
        """
        levels = self.backbone(normalise(images, image_sizes, self.dtype))
        return self.fpn(levels) if self.config.neck == "fpn" else levels[-1:]

    def anchors(self, height, width):
        """Anchors of images padded to `height` × `width`."""
        c = self.config.anchors
        boxes, levels = anchor_grid(height, width, **c)
        return Anchors(boxes, levels, cell_origins(height, width, c.strides, self.anchors_per_cell))

    @property
    def clip_margin(self):
        """What a clipped box keeps inside the image, pixels."""
        return 1.0 if self.config.pixel_boxes else 0.0

    def propose(self, logits, deltas, anchors, image_sizes):
        """Proposals (B, N, 4) and validity (B, N) from the RPN's outputs."""
        one = partial(rpn_head.propose, **self.config.proposals, clip_margin=self.clip_margin)
        return jax.vmap(
            lambda logits, deltas, size: one(
                logits, deltas, anchors.boxes, anchors.levels, anchors.valid(size), size
            )
        )(logits, deltas, image_sizes)

    def pool(self, features, boxes, valid, bins, images=None):
        """RoI features (B·N, bins, bins, C) of boxes (B, N, 4) from the levels P2–P5, or from C5.

        `images` (B, N): which image each box reads, see `roi_align`.
        """
        c = self.config
        levels = features[:POOLED_LEVELS]
        strides = c.anchors.strides[: len(levels)]
        roi = roi_align(levels, strides, boxes, valid, bins=bins, images=images, **c.roi_align)
        return roi.reshape(-1, *roi.shape[2:])

    def classify(self, roi, batch):
        """Class logits (B, N, K + 1) and deltas (B, N, K, 4) of RoI features (B·N, 7, 7, C)."""
        logits, deltas = self.box_head(roi)
        return logits.reshape(batch, -1, *logits.shape[1:]), deltas.reshape(batch, -1, *deltas.shape[1:])

    def embed(self, roi, batch):
        """Embeddings (B, N, E) of RoI features (B·N, 7, 7, C)."""
        embeddings = self.track_head(roi)
        return embeddings.reshape(batch, -1, embeddings.shape[-1])

    def mask_logits(self, features, boxes, valid, labels):
        """Mask logits (B, N, 28, 28) of the valid boxes (B, N, 4), each for its own label (B, N).

        Those of the rest mean nothing. A large head takes time by the valid boxes, its gradient too.
        """
        rows = self.pool(features, boxes, valid, 14), labels.reshape(-1)
        chunk = max(LEAST_TRAINED, -(-valid.size // MOST_TRAINED_CHUNKS))
        kernel = (3, 3, rows[0].shape[-1], self.mask_head.channels)
        # On a CPU the gradient of XLA's own convolutions is up to 18 times slower within a conditional.
        fast = jax.default_backend() != "cpu" or few_products((chunk, 14, 14, kernel[2]), self.dtype, kernel)
        if not fast:
            logits = self.mask_head(*rows)
        else:
            head, variables = self.mask_head.unbind()
            logits = map_present(lambda rows: head.apply(variables, *rows), valid.reshape(-1), rows, chunk)
        return logits.reshape(*labels.shape, *logits.shape[1:])

    def detect(self, images, image_sizes):
        """`Detections` of RGB uint8 images (B, H, W, 3) whose contents are `image_sizes` (B, 2) large."""
        batch, height, width = images.shape[:3]
        features = self.features(images, image_sizes)
        anchors = self.anchors(height, width)
        proposals, valid = self.propose(*self.rpn_head(features), anchors, image_sizes)
        logits, deltas = self.classify(self.pool(features, proposals, valid, 7), batch)
        options = {**self.config.detections, "clip_margin": self.clip_margin}
        boxes, scores, labels, probabilities, valid, cut = box_head.detect(
            logits, deltas, proposals, valid, image_sizes, **options
        )
        masks, embeddings = self.describe(features, boxes, labels, valid)
        return Detections(boxes, scores, labels, probabilities, valid, masks, embeddings, cut)

    def call_parts(self, images, image_sizes):
        """Call every part once, for its parameters: what lies between them would only be traced."""
        features = self.features(images, image_sizes)
        self.rpn_head(features)
        small, large = (jnp.zeros((1, bins, bins, features[0].shape[-1]), self.dtype) for bins in (7, 14))
        self.box_head(small)
        self.mask_head(large, jnp.zeros(1, jnp.int32))
        self.track_head(small)

    def describe(self, features, boxes, labels, valid):
        """Masks (B, N, 28, 28) and embeddings (B, N, E) of the valid boxes (B, N, 4); zeros for the rest.

        In time that goes with the number of valid boxes: most frames have far fewer than N.
        """
        shape = valid.shape
        images = jnp.broadcast_to(jnp.arange(shape[0], dtype=jnp.int32)[:, None], shape)
        rows = [x.reshape(-1, *x.shape[2:]) for x in (boxes, labels, images)]
        # Unbound: Flax modules that are bound cannot be called within a loop of JAX.
        heads = [head.unbind() for head in (self.mask_head, self.track_head)]
        (mask_head, mask_variables), (track_head, track_variables) = heads

        def masks(rows, exist):
            boxes, labels, images = rows
            roi = self.pool(features, boxes[None], exist[None], 14, images[None])
            return jax.nn.sigmoid(mask_head.apply(mask_variables, roi, labels))

        def embeddings(rows, exist):
            boxes, _, images = rows
            roi = self.pool(features, boxes[None], exist[None], 7, images[None])
            return track_head.apply(track_variables, roi)

        chunks = self.describe_chunks(valid.size)
        # The paper's track head takes its time to read its parameters: rows that do not exist cost nothing.
        parts = (masks, chunks), (embeddings, chunks[:1])
        described = [map_valid(part, valid.reshape(-1), rows, chunks) for part, chunks in parts]
        return tuple(x.reshape(*shape, *x.shape[1:]) for x in described)

    @staticmethod
    def describe_chunks(count):
        """How many of `count` boxes `describe` works on at a time, and how many of the last ones."""
        small = min(count, max(LEAST_CHUNK, -(-count // (LARGER * MOST_CHUNKS))))
        return min(count, LARGER * small), small

    @nn.nowrap
    def init_variables(self, key, height=64, width=64):
        """Variables {"params", "batch_stats"?} of the network; the image size does not matter."""
        images = jnp.zeros((1, height, width, 3), jnp.uint8)
        return jax.jit(partial(self.init, method="call_parts"))(key, images, jnp.array([[height, width]]))
