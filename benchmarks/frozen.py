"""Track heads on a frozen detector: RoI features are computed once, and a head trains on them in minutes.

    kept = keep_rois(model, variables, batches, config.train)
    params, history = fit_head(config, kept, steps=2000, batch_size=16)
    variables["params"]["track_head"] = params

One detector serves every head and every loss with the same `references`. Frames are augmented and RoIs drawn
as in training (training/objective.py), but only once: a pair looks the same each time it is used.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict, FrozenConfigDict

from masktrack_jax.data.batches import FramePairs
from masktrack_jax.losses.tracking import Samples
from masktrack_jax.models.masktrack_rcnn import MaskTrackRCNN
from masktrack_jax.models.track_head import build_track_head
from masktrack_jax.training import schedule
from masktrack_jax.training.objective import pair_rois, sample_keys
from masktrack_jax.training.track_samples import track_terms

Params = dict[str, Any]


class KeptRois(NamedTuple):
    """RoI features of both frames of many pairs."""

    key: Samples
    reference: Samples


class HeadState(NamedTuple):
    """What a step of `fit_head` changes."""

    params: Params
    opt_state: optax.OptState


def keep_rois(
    model: MaskTrackRCNN,
    variables: Params,
    batches: Iterable[FramePairs],
    options: ConfigDict,
    seed: int = 0,
    dtype: np.typing.DTypeLike = np.float16,
) -> KeptRois:
    """RoI features of all pairs of `batches` as NumPy arrays (pairs, …).

    `options` is a config's `train`, whose `track.loss` decides which RoIs are drawn. Features are stored as
    `dtype`.
    """
    options = FrozenConfigDict(options)
    run = jax.jit(nn.apply(partial(pair_rois, options=options), model))
    parts, seen = [], 0
    for pairs in batches:
        n = len(pairs.key.image)
        found = run(variables, pairs, sample_keys(jax.random.key(seed), n, seen))
        found = [s._replace(features=s.features.astype(dtype)) for s in jax.device_get(found)]
        parts.append(KeptRois(*found))
        seen += n
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def fit_head(
    config: ConfigDict, kept: KeptRois, *, steps: int, batch_size: int, seed: int = 0
) -> tuple[Params, dict[str, np.ndarray]]:
    """Parameters of a new head of `config.model.track_head`, and the metrics of all steps (steps,).

    The head learns by `config.train.track` and `config.optimizer` from `kept`, `batch_size` random pairs a
    step.
    """
    head = build_track_head(config.model.track_head, jnp.dtype(config.model.dtype))
    start_key, draw_key = jax.random.split(jax.random.key(seed))
    kept = jax.device_put(kept)
    params = head.init(start_key, kept.key.features[0, :1].astype(jnp.float32))["params"]
    optimizer = schedule.make_optimizer(config.optimizer, steps, jax.tree.map(lambda _: True, params))
    state = HeadState(params, optimizer.init(params))
    step = jax.jit(_step(head, optimizer, FrozenConfigDict(config.train), batch_size))
    history = []
    for i in range(steps):
        state, metrics = step(kept, state, jax.random.fold_in(draw_key, i))
        history.append(metrics)
    history = jax.device_get(history)
    return state.params, {name: np.array([row[name] for row in history]) for name in history[0]}


def _step(
    head: nn.Module, optimizer: optax.GradientTransformation, options: ConfigDict, batch_size: int
) -> Callable[[KeptRois, HeadState, jax.Array], tuple[HeadState, dict[str, jax.Array]]]:
    """`step(kept, state, key)`: the new state and metrics."""

    def step(kept: KeptRois, state: HeadState, key: jax.Array) -> tuple[HeadState, dict[str, jax.Array]]:
        rows = jax.random.randint(key, (batch_size,), 0, len(kept.key.valid))
        pair = [jax.tree.map(lambda x: x[rows], samples) for samples in kept]
        pair = [s._replace(features=s.features.astype(jnp.float32)) for s in pair]

        def objective(params: Params) -> tuple[jax.Array, dict[str, jax.Array]]:
            embed = partial(head.apply, {"params": params})
            terms, (right, count) = track_terms(embed, *pair, options.track)
            metrics = {
                name: total / jnp.maximum(count, 1) * options.loss_weights[name]
                for name, (total, count) in terms.items()
            }
            return sum(metrics.values()), metrics | {"match_accuracy": right / jnp.maximum(count, 1)}

        gradients, metrics = jax.grad(objective, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        return HeadState(optax.apply_updates(state.params, updates), opt_state), metrics

    return step
