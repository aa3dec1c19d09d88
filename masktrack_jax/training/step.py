"""The training step on one device, and its parallel execution on all devices."""

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
from masktrack_jax.runtime.processes import AXIS, all_devices, local_devices, split_over
from masktrack_jax.training.objective import pair_losses, sample_keys
from masktrack_jax.training.track_samples import Terms

Metrics = dict[str, Num[Array, ""]]


class TrainState(NamedTuple):
    """The state of a run, which a step updates and a checkpoint stores."""

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
    signal: Int[Any, "*devices"]  # termination signal that this process received, or 0


def create_train_state(
    key: PRNGKeyArray, variables: Mapping[str, Any], optimizer: optax.GradientTransformation
) -> TrainState:
    """The state at step 0."""
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
    """Compute the new state and metrics from this device's part of the batch.

    Losses and gradients are sums over all devices divided by counts over all devices. So the step depends
    neither on the number of devices that share the batch, nor on the number of micro-batches
    (`options.accumulate`) on each device. `options` is a config's `train`.
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
    """Compute `losses(variables, pairs, keys)` in `parts` sequential micro-batches and sum the results.

    The sums are divided by the counts of the whole batch, which are known only after all micro-batches have
    drawn their samples. So the forward pass keeps only sums, and each micro-batch is recomputed for its
    gradient. This is exact, and needs the memory of one micro-batch and one additional forward pass.
    """
    if parts == 1:
        return losses

    def run(variables: dict[str, Any], *arrays: object) -> tuple[Terms, Terms]:
        cut = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), arrays)
        again = jax.checkpoint(losses, prevent_cse=False)  # unnecessary in the body of a loop
        _, sums = lax.scan(lambda _, part: (None, again(variables, *part)), None, cut)
        return jax.tree.map(lambda x: x.sum(0), sums)

    return run


def without_gradient(params: dict[str, Any], only: str) -> dict[str, Any]:
    """Stop the gradient to all parts of the network that are not in `only` (`train.only`).

    Gradients of these parts, and of all layers below the trained ones, are then not computed.
    """
    learning = only.split(",") if only else params.keys()
    return {name: p if name in learning else lax.stop_gradient(p) for name, p in params.items()}


def guarded(
    step: Callable[[TrainState, FramePairs], tuple[TrainState, Metrics]], on_nan: str
) -> Callable[[TrainState, StepBatch], tuple[TrainState, Metrics]]:
    """Wrap `step` so that it changes no parameter if its loss or gradient is not finite.

    With `on_nan` "skip", a bad step is counted as a step. With "stop" it is not counted, and later steps
    change nothing either, because their batches belong to later states. The host can therefore detect a bad
    step late and still has the last good state. Adds three metrics: `bad` (0 or 1), and over all processes
    the highest `signal` and the sum of `skipped_pairs`.
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
    """Run `step(state, batch)` on `devices` with `pmap`; default: the devices of all processes.

    Each process passes the parts of its own devices, (local devices, batch of one device, …). The state is
    replicated on all devices, and donated.
    """
    devices = devices or all_devices()
    return jax.pmap(
        step, AXIS, in_axes=(None, 0), out_axes=(None, None), donate_argnums=(0,), devices=devices
    )


def split_batch(batch: PairBatch, devices: int, step: int, signal: int | None = None) -> StepBatch:
    """Split a batch among `devices` devices, as the `StepBatch` after `step` steps, on the host."""
    pairs = map_arrays(partial(_split, devices=devices), batch.pairs)
    return StepBatch(pairs, *_counts(batch, devices, step, signal))


def on_devices(batch: PairBatch, devices: Sequence[jax.Device] | None = None) -> PairBatch:
    """Split the pairs of a batch among `devices` (default: of this process), and start to transfer them."""
    devices = devices or local_devices()
    pairs = map_arrays(partial(_split, devices=len(devices)), batch.pairs)
    key, reference = split_over(pairs, devices)
    return PairBatch(key, reference, batch.provenance)


def step_batch(batch: PairBatch, step: int, signal: int | None = None) -> StepBatch:
    """The same as `split_batch`, of a batch that is `on_devices`."""
    image = batch.key.image
    return StepBatch(batch.pairs, *jax.device_put(_counts(batch, len(image), step, signal), image.sharding))


def _split(array: np.ndarray, devices: int) -> np.ndarray:
    return np.reshape(array, (devices, -1, *array.shape[1:]))


def _counts(batch: PairBatch, devices: int, step: int, signal: int | None) -> tuple[np.ndarray, ...]:
    """The fields of a `StepBatch` after its pairs."""
    counts = (np.full(devices, count, np.int32) for count in (step, signal or 0))
    return _split(batch.provenance.skipped, devices), *counts
