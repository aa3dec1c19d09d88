"""Learning rate and optimiser from a config's `optimizer` section."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from masktrack_jax.runtime.errors import UserError

DECAY_FACTOR = 0.1  # factor of the schedule "steps" at each of `decay_at`

Rate = Callable[[int | Int[Array, ""]], float | Float[Array, ""]]


def learning_rate(options: ConfigDict, total_steps: int) -> Rate:
    """The learning rate as a function of the step: linear warm-up, then steps (÷ 10) or a cosine to 0."""

    def warmed(step: int | Int[Array, ""]) -> Float[Array, ""]:
        start = options.warmup_factor
        grown = start + (1 - start) * step / max(options.warmup_steps, 1)
        return jnp.minimum(grown, 1.0)

    if options.schedule == "steps":
        edges = {int(total_steps * fraction): DECAY_FACTOR for fraction in options.decay_at}
        decay = optax.piecewise_constant_schedule(1.0, edges)
    elif options.schedule == "cosine":
        decay = optax.cosine_decay_schedule(1.0, total_steps)
    else:
        raise UserError(f"config.optimizer.schedule is {options.schedule!r}: use 'steps' or 'cosine'")
    return lambda step: options.learning_rate * warmed(step) * decay(step)


def trainable(params: dict[str, Any], frozen: tuple[str, ...], only: str = "") -> dict[str, Any]:
    """A tree of bools: False for backbone parameters whose name starts with one of `frozen`.

    Parts of the network that are not in `only` (`train.only`, comma-separated names) are False too.
    """

    def is_trainable(path: jax.tree_util.KeyPath, _: object) -> bool:
        names = [key.key for key in path]
        if only and names[0] not in only.split(","):
            return False
        return not (names[0] == "backbone" and names[1].startswith(frozen)) if frozen else True

    return jax.tree_util.tree_map_with_path(is_trainable, params)


def make_optimizer(
    options: ConfigDict, total_steps: int, mask: dict[str, Any]
) -> optax.GradientTransformation:
    """The gradient transformation. Parameters outside `mask` do not change (no decay, no moments)."""
    rate = learning_rate(options, total_steps)
    if options.name == "sgd":
        # Decay before momentum, on every parameter, like PyTorch's SGD in the reference.
        update = optax.chain(
            optax.add_decayed_weights(options.weight_decay), optax.sgd(rate, options.momentum)
        )
    elif options.name == "adamw":
        matrices = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)  # noqa: E731
        update = optax.adamw(rate, weight_decay=options.weight_decay, mask=matrices)
    else:
        raise UserError(f"config.optimizer.name is {options.name!r}: use 'sgd' or 'adamw'")
    update = optax.chain(optax.clip_by_global_norm(options.clip_norm), update)
    labels = jax.tree.map(lambda t: "train" if t else "freeze", mask)
    return optax.multi_transform({"train": update, "freeze": optax.set_to_zero()}, labels)
