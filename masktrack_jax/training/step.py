"""One training step on one device, and its run on all of them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int, Num, PRNGKeyArray
from ml_collections import ConfigDict

from masktrack_jax.data.batches import FramePairs, PairBatch, map_arrays
from masktrack_jax.models.masktrack_rcnn import MaskTrackRCNN
from masktrack_jax.runtime.processes import all_devices
from masktrack_jax.training.objective import pair_losses, sample_keys
from masktrack_jax.training.track_samples import Terms

AXIS = "data"

Metrics = dict[str, Num[Array, ""]]


class TrainState(NamedTuple):
    """What a step changes, and what a checkpoint holds to resume the run."""

    step: Int[Array, ""]
    key: PRNGKeyArray  # the same for the whole run
    params: dict[str, Any]
    batch_stats: dict[str, Any]  # statistics of frozen batch norm; never trained
    opt_state: optax.OptState


class StepBatch(NamedTuple):
    """The input of a guarded step: each device's part of the batch."""

    pairs: FramePairs
    skipped: Int[Any, "*batch"]  # unreadable pairs, see `Provenance`
    step: Int[Any, "*devices"]  # steps before this one
    signal: Int[Any, "*devices"]  # to end the run, received by this process; or 0


def create_train_state(
    key: PRNGKeyArray, variables: Mapping[str, Any], optimizer: optax.GradientTransformation
) -> TrainState:
    """State at step 0."""
    params = variables["params"]
    stats = variables.get("batch_stats", {})
    return TrainState(jnp.zeros((), jnp.int32), key, params, stats, optimizer.init(params))


def train_step(
    state: TrainState,
    pairs: FramePairs,
    *,
    model: MaskTrackRCNN,
    optimizer: optax.GradientTransformation,
    options: ConfigDict,
) -> tuple[TrainState, Metrics]:
    """New state and metrics from this device's part of the batch. `options` is a config's `train`.

    A loss is its sum over all devices divided by its count over all devices, and so is its gradient: neither
    the number of devices that share the batch changes the step, nor the number of micro-batches
    (`options.accumulate`) on each device.
    """
    n = len(pairs.key.image)
    keys = sample_keys(jax.random.fold_in(state.key, state.step), n, lax.axis_index(AXIS) * n)
    losses = accumulated(nn.apply(partial(pair_losses, options=options), model), options.accumulate)

    def objective(params: dict[str, Any]) -> tuple[Float[Array, ""], tuple[Metrics, Terms]]:
        params = without_gradient(params, options.only)
        terms, extras = losses({"params": params, "batch_stats": state.batch_stats}, pairs, keys)
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


def accumulated(losses: Callable, parts: int) -> Callable:
    """`losses(variables, pairs, keys)`, computed in `parts` micro-batches, one after the other, and summed.

    The sums are divided by the counts of the whole batch, which are known only when all micro-batches have
    drawn their samples. So the forward pass keeps only sums, and each micro-batch is computed again for its
    gradient. That is exact, with the memory of one micro-batch and one more forward pass.
    """
    if parts == 1:
        return losses

    def run(variables: dict[str, Any], *arrays: object) -> tuple[Terms, Terms]:
        cut = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), arrays)
        again = jax.checkpoint(losses, prevent_cse=False)  # the body of a loop has nothing to be merged with
        _, sums = lax.scan(lambda _, part: (None, again(variables, *part)), None, cut)
        return jax.tree.map(lambda x: x.sum(0), sums)

    return run


def without_gradient(params: dict[str, Any], only: str) -> dict[str, Any]:
    """`params`, with no gradient to the parts of the network that `only` (`train.only`) leaves out.

    The gradients of frozen parts, and of all layers below the learning ones, are then not computed.
    """
    learning = only.split(",") if only else params.keys()
    return {name: p if name in learning else lax.stop_gradient(p) for name, p in params.items()}


def guarded(
    step: Callable[[TrainState, FramePairs], tuple[TrainState, Metrics]], on_nan: str
) -> Callable[[TrainState, StepBatch], tuple[TrainState, Metrics]]:
    """A step that changes no parameter if its loss or gradient is not finite.

    With `on_nan` "skip" a bad step counts as a step. With "stop" it does not, and later steps change nothing
    either, because their batches are meant for another state: the host may learn of the bad step late and
    still has the last good state. Adds the metrics `bad`, 0 or 1, and over all processes `signal`, the
    highest one, and the sum `skipped_pairs`.
    """

    def run(state: TrainState, batch: StepBatch) -> tuple[TrainState, Metrics]:
        due = batch.step == state.step
        new, metrics = step(state, batch.pairs)
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["gradient_norm"])
        good = finite & due
        params, opt_state = jax.tree.map(
            lambda ours, theirs: jnp.where(good, ours, theirs),
            (new.params, new.opt_state),
            (state.params, state.opt_state),
        )
        counted = due if on_nan == "skip" else good
        number = jnp.where(counted, new.step, state.step)
        new = new._replace(step=number, params=params, opt_state=opt_state)
        signal = lax.pmax(batch.signal, AXIS)
        skipped = lax.psum(batch.skipped.sum(), AXIS)
        return new, metrics | {"bad": 1.0 - finite, "signal": signal, "skipped_pairs": skipped}

    return run


def parallel(step: Callable, devices: Sequence[jax.Device] | None = None) -> Callable:
    """`step(state, batch)` over `devices`, by default those of all processes, by `pmap`.

    Each process gives the parts of its own devices, (local devices, batch of one device, …). The state is the
    same on all devices, and donated.
    """
    devices = devices or all_devices()
    return jax.pmap(
        step, AXIS, in_axes=(None, 0), out_axes=(None, None), donate_argnums=(0,), devices=devices
    )


def split_batch(batch: PairBatch, devices: int, step: int, signal: int | None = None) -> StepBatch:
    """The `StepBatch` after `step` steps of a batch that `devices` devices share."""

    def split(array: np.ndarray) -> np.ndarray:
        return np.reshape(array, (devices, -1, *array.shape[1:]))

    counts = (np.full(devices, count, np.int32) for count in (step, signal or 0))
    return StepBatch(map_arrays(split, batch.pairs), split(batch.provenance.skipped), *counts)
