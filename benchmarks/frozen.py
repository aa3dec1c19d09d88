"""Track heads on a frozen detector: RoI features are computed once, and a head is trained on them in minutes.

    kept = keep_rois(model, variables, batches, config.train)
    params, history = fit_head(config, kept, steps=2000, batch_size=16)
    variables["params"]["track_head"] = params

One detector serves every head and every loss with the same `references`. Frames are augmented and RoIs drawn
as in training (training/objective.py), but once: a pair looks the same whenever it comes again.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import FrozenConfigDict

from masktrack_jax.data.pairs import PROVENANCE
from masktrack_jax.models.track_head import build_track_head
from masktrack_jax.training import schedule
from masktrack_jax.training.objective import pair_rois, sample_keys
from masktrack_jax.training.track_samples import track_terms


def keep_rois(model, variables, batches, options, seed=0, dtype=np.float16):
    """`Samples` (key, reference) of NumPy arrays (pairs, …) with RoI features of all pairs of `batches`.

    `batches`: an iterable of those of data/pipeline.py; `options`: a config's `train`, whose `track.loss`
    says what is drawn; `dtype`: of the features that are kept.
    """
    options = FrozenConfigDict(options)
    run = jax.jit(nn.apply(partial(pair_rois, options=options), model))
    parts, seen = [], 0
    for batch in batches:
        arrays = {name: x for name, x in batch.items() if name not in PROVENANCE}
        n = len(arrays["image"])
        pair = jax.device_get(run(variables, arrays, sample_keys(jax.random.key(seed), n, seen)))
        parts.append([s._replace(features=s.features.astype(dtype)) for s in pair])
        seen += n
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *map(tuple, parts))


def fit_head(config, kept, *, steps, batch_size, seed=0):
    """Parameters of a new head of `config.model.track_head`, and metrics {name: (steps,)} on its way.

    It learns by `config.train.track` and `config.optimizer` from `kept` (`keep_rois`), `batch_size` pairs a
    step, drawn anew at every step.
    """
    head = build_track_head(config.model.track_head, jnp.dtype(config.model.dtype))
    start_key, draw_key = jax.random.split(jax.random.key(seed))
    kept = jax.device_put(kept)
    params = head.init(start_key, kept[0].features[0, :1].astype(jnp.float32))["params"]
    optimizer = schedule.make_optimizer(config.optimizer, steps, jax.tree.map(lambda _: True, params))
    state = params, optimizer.init(params)
    step = jax.jit(partial(_step, head, optimizer, FrozenConfigDict(config.train), batch_size))
    history = []
    for i in range(steps):
        state, metrics = step(kept, state, jax.random.fold_in(draw_key, i))
        history.append(metrics)
    history = jax.device_get(history)
    return state[0], {name: np.array([row[name] for row in history]) for name in history[0]}


def _step(head, optimizer, options, batch_size, kept, state, key):
    """New (parameters, optimiser state) and metrics {name: ()}."""
    params, opt_state = state
    rows = jax.random.randint(key, (batch_size,), 0, len(kept[0].valid))
    pair = [jax.tree.map(lambda x: x[rows], samples) for samples in kept]
    pair = [s._replace(features=s.features.astype(jnp.float32)) for s in pair]

    def objective(params):
        terms, (right, asked) = track_terms(partial(head.apply, {"params": params}), *pair, options.track)
        metrics = {
            name: total / jnp.maximum(count, 1) * options.loss_weights[name]
            for name, (total, count) in terms.items()
        }
        return sum(metrics.values()), metrics | {"match_accuracy": right / jnp.maximum(asked, 1)}

    gradients, metrics = jax.grad(objective, has_aux=True)(params)
    updates, opt_state = optimizer.update(gradients, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), metrics
