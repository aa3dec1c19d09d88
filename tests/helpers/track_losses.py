"""Tracking losses in all their forms, and samples for them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from ml_collections import FrozenConfigDict

from masktrack_jax.config.base import base_config
from masktrack_jax.losses import tracking
from masktrack_jax.losses.tracking import Samples

TRACK = FrozenConfigDict(base_config().train.track)


def options(name: str, **changes: Any) -> dict[str, Any]:
    """The published options of a loss but for `changes`."""
    published = {key: value for key, value in TRACK[name].items() if key != "references"}
    return published | changes


FORMS = {
    "softmax": options("softmax"),
    "softmax over positives": options("softmax", over="positives"),
    "triplet": options("triplet"),
    "triplet soft": options("triplet", soft=True),
    "triplet unit": options("triplet", unit_length=True, margin=0.7),
    "contrastive": options("contrastive", margin=3.0),
    "contrastive unit": options("contrastive", unit_length=True),
    "quasi_dense": options("quasi_dense"),
    "quasi_dense wide": options("quasi_dense", weight=1.0, cosine_margin=0.3, negatives_per_positive=1),
}


def loss_of(form: str) -> Callable[[Samples, Samples], tracking.TrackLoss]:
    """The loss of an entry of FORMS."""
    return partial(tracking.LOSSES[form.split(" ")[0]], **FORMS[form])


def make_pair(form: str, seed: int = 0) -> tuple[Samples, Samples]:
    """Samples of five pairs with embeddings of 4 numbers, 5 in the key and 6 in the reference frame.

    The third pair has no object in common, the fourth no object in the key frame, the fifth nothing at all.
    Softmax has one sample an object in the reference frame, other losses several, and background.
    """
    rng = np.random.default_rng(seed)

    def samples(n: int, identity: np.ndarray, background: bool) -> Samples:
        identity = np.int32(identity)
        positive = (rng.random((5, n)) < 0.75) & (identity >= 0)
        positive[4] = False
        valid = positive | ((rng.random((5, n)) < 0.5) if background else False)
        valid[4] = False
        return Samples(rng.normal(size=(5, n, 4)).astype("f4"), identity, positive, valid)

    key = samples(5, rng.integers(0, 5, (5, 5)), False)
    if form.startswith("softmax"):
        reference = samples(6, np.tile(np.arange(6), (5, 1)), False)
    else:
        reference = samples(6, rng.integers(0, 5, (5, 6)), True)
    key.identity[2] += 10
    key.positive[3] = key.valid[3] = False
    return key, reference
