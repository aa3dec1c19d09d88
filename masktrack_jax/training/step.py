"""One training step of one device, and its run over all of them."""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from masktrack_jax.runtime.processes import all_devices
from masktrack_jax.training.objective import pair_losses, sample_keys

AXIS = "data"


class TrainState(NamedTuple):
    """What a step changes, and what a checkpoint must hold for the run to go on."""

    step: jnp.ndarray  # () int32
    key: jnp.ndarray  # typed PRNG key, the same for the whole run
    params: Any
    batch_stats: Any  # statistics of frozen batch norm; never trained
    opt_state: Any


def create_train_state(key, variables, optimizer):
    """State at step 0."""
    params = variables["params"]
    stats = variables.get("batch_stats", {})
    return TrainState(jnp.zeros((), jnp.int32), key, params, stats, optimizer.init(params))


def train_step(state, batch, *, model, optimizer, options):
    """New state and metrics {name: ()} from this device's part of the batch.

    A loss is its sum over all devices over its count over all devices, and so is its gradient: the step
    is the same however many devices share the batch, and however many micro-batches
    (`options.accumulate`) each cuts its part into.
    """
    n = batch["image"].shape[0]
    keys = sample_keys(jax.random.fold_in(state.key, state.step), n, lax.axis_index(AXIS) * n)
    run = in_turn(nn.apply(partial(pair_losses, options=options), model), options.accumulate)

    def objective(params):
        params = without_gradient(params, options.only)
        terms, extras = run({"params": params, "batch_stats": state.batch_stats}, batch, keys)
        counts = {name: lax.psum(count, AXIS) for name, (_, count) in terms.items()}
        parts = {
            name: total / jnp.maximum(counts[name], 1.0) * options.loss_weights[name]
            for name, (total, _) in terms.items()
        }
        return sum(parts.values()), (parts, extras)

    gradients, (parts, extras) = jax.grad(objective, has_aux=True)(state.params)
    gradients, parts, extras = lax.psum((gradients, parts, extras), AXIS)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {f"loss_{name}": value for name, value in parts.items()}
    metrics |= {name: total / jnp.maximum(count, 1) for name, (total, count) in extras.items()}
    metrics |= {"loss": sum(parts.values()), "gradient_norm": optax.tree.norm(gradients)}
    return state._replace(step=state.step + 1, params=params, opt_state=opt_state), metrics


def in_turn(losses, parts):
    """`losses(variables, batch, keys)`, sums over samples, of `parts` micro-batches one after the other.

    What a sum is divided by is the count of the whole batch, which is known only when every micro-batch has
    drawn its samples. So nothing but sums is kept of the forward pass; each micro-batch is computed again
    for its gradient. That is exact, with the memory of one micro-batch and one more forward pass.
    """
    if parts == 1:
        return losses

    def run(variables, *arrays):
        cut = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), arrays)
        again = jax.checkpoint(losses, prevent_cse=False)  # a loop's body has nothing to be merged with
        _, sums = lax.scan(lambda _, part: (None, again(variables, *part)), None, cut)
        return jax.tree.map(lambda x: x.sum(0), sums)

    return run


def without_gradient(params, only):
    """`params`, where nothing flows back into the parts of the network that `only` (`train.only`) leaves out.

    So the gradients of what is frozen, and of what lies below all that learns, are not computed.
    """
    learning = only.split(",") if only else params.keys()
    return {name: p if name in learning else lax.stop_gradient(p) for name, p in params.items()}


def parallel(step, devices=None):
    """`step(state, batch)` over `devices`, by default those of all processes, by pmap.

    batch (local devices, B, …): each process gives its own; one state, the same in all of them, donated.
    """
    devices = devices or all_devices()
    return jax.pmap(
        step, AXIS, in_axes=(None, 0), out_axes=(None, None), donate_argnums=(0,), devices=devices
    )
