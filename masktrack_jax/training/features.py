"""Inputs of the losses of a batch: feature levels of both frames of each pair, and proposals."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from masktrack_jax.data.batches import FramePairs, Frames
from masktrack_jax.models.masktrack_rcnn import MaskTrackRCNN, Pyramid
from masktrack_jax.training.targets import Proposals


class PairFeatures(NamedTuple):
    """Feature levels of the frames of `pairs`, and a random key for each pair."""

    key: Pyramid
    reference: Pyramid
    pairs: FramePairs
    keys: Key[Array, " batch"]


class RPNOutputs(NamedTuple):
    """Outputs of the RPN at all anchors, see `RPNHead`."""

    logits: Float[Array, "batch anchors"]
    deltas: Float[Array, "batch cells deltas"]


def pair_features(model: MaskTrackRCNN, pairs: FramePairs, keys: Key[Array, " batch"]) -> PairFeatures:
    """Feature levels of all frames of `pairs`.

    If the reference frames have targets too, the reversed pairs are appended. Every frame is then used both
    as key and as reference, which gives twice the pairs from the same features.
    """
    n = len(pairs.key.image)
    key, reference = (frames._replace(targets=None) for frames in pairs)
    both = _concatenate(key, reference)
    levels = model.features(both.image, both.image_size)
    if pairs.reference.targets is None:
        return PairFeatures(tuple(x[:n] for x in levels), tuple(x[n:] for x in levels), pairs, keys)

    all_pairs = FramePairs(_concatenate(*pairs), _concatenate(reference, key))
    again = jax.vmap(partial(jax.random.fold_in, data=1))(keys)
    swapped = tuple(jnp.roll(x, n, axis=0) for x in levels)
    return PairFeatures(levels, swapped, all_pairs, jnp.concatenate([keys, again]))


def _concatenate(first: Frames, second: Frames) -> Frames:
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second)


def frame_proposals(model: MaskTrackRCNN, rpn: RPNOutputs, frames: Frames) -> Proposals:
    """Proposals for `frames` from the outputs of the RPN, without a gradient to these."""
    anchors = model.anchors(*frames.image.shape[1:3])
    logits, deltas = map(lax.stop_gradient, rpn)
    return Proposals(*model.propose(logits, deltas, anchors, frames.image_size))
