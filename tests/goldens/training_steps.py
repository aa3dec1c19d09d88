"""Losses, gradients and SGD steps on one pair against `(orig_)train_A` and `(orig_)traj_A`."""

import copy
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import FrozenConfigDict

from masktrack_jax.models.resnet import frozen_names
from masktrack_jax.training import schedule
from masktrack_jax.training.step import create_train_state, parallel, train_step

from .network import as_recorded, network
from .recorded import Row, arrays, document
from .training import RECORDINGS, build, first_candidates, pair

# Our name of a loss, and theirs.
LOSSES = {
    "mm": {"rpn_cls": "loss_rpn_cls", "rpn_box": "loss_rpn_bbox", "cls": "loss_cls", "box": "loss_bbox"},
    "orig": {"rpn_cls": "loss_rpn_cls", "rpn_box": "loss_rpn_reg", "cls": "loss_cls", "box": "loss_reg"},
}
for known in LOSSES.values():
    known |= {"mask": "loss_mask", "match": "loss_match"}
LOSS = 1e-4
# Two compilations of the same step differ by 0.005 in the median tensor and by 0.01 in the worst: units whose
# input is near 0 fall on either side of ReLU.
MEDIAN_GRADIENT, WORST_GRADIENT = 0.01, 0.02
TRAJECTORY = (1e-5, 1e-3, 2e-2, 5e-2)


@cache
def run_steps(form: str, count: int) -> tuple[list[dict[str, Any]], Any, Any, Any]:
    """Return metrics of `count` SGD steps, gradients of the first, parameters before and after it."""
    config, model, variables = build(form)
    config = copy.deepcopy(config)
    # Both were recorded at this rate, without warm-up.
    config.optimizer.update({"learning_rate": 0.00125, "warmup_factor": 1.0, "decay_at": ()})
    mask = schedule.trainable(variables["params"], frozen_names(config.model.backbone.frozen_stages))
    optimizer = remembering(schedule.make_optimizer(config.optimizer, 100, mask))
    step = partial(train_step, model=model, optimizer=optimizer, options=FrozenConfigDict(config.train))
    state = create_train_state(jax.random.key(0), variables, optimizer)
    batch = jax.tree.map(lambda x: x[None], pair(form))
    run, metrics, first = parallel(step, jax.local_devices()[:1]), [], None
    with first_candidates():
        for _ in range(count):
            state, values = jax.device_get(run(state, batch))
            metrics.append(values)
            first = first or (state.opt_state[1], state.params)
    return metrics, first[0], variables["params"], first[1]


def remembering(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return the optimiser with the latest gradients in its state."""

    def update(gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
        updates, inner = optimizer.update(gradients, state[0], params)
        return updates, (inner, gradients)

    return optax.GradientTransformation(
        lambda p: (optimizer.init(p), jax.tree.map(jnp.zeros_like, p)), update
    )


def step_rows(form: str) -> Iterator[Row]:
    """Losses, gradients and the first step of plain SGD."""
    name, recorded = RECORDINGS[form], arrays(RECORDINGS[form])
    metrics, gradients, before, after = run_steps(form, 4)
    for ours, theirs in LOSSES[form].items():
        wanted = float(recorded[f"loss/{theirs}"])
        yield Row(name, f"loss {ours}, relative", LOSS, abs(metrics[0][f"loss_{ours}"] - wanted) / wanted)
    accuracy = float(recorded["loss/match_accuracy" if form == "mm" else "loss/match_acc"]) / 100
    yield Row(name, "match accuracy", 1e-6, abs(metrics[0]["match_accuracy"] - accuracy))
    stats = network(form)[1]["batch_stats"]
    ours = as_recorded({"params": gradients, "batch_stats": stats}, form)
    yield from tensor_rows(name, "grad", "gradients", ours)
    step = jax.tree.map(lambda a, b: a - b, after, before)
    ours = as_recorded({"params": step, "batch_stats": stats}, form)
    yield from tensor_rows(name, "step", "SGD step", ours)


def tensor_rows(name: str, prefix: str, quantity: str, ours: dict[str, np.ndarray]) -> Iterator[Row]:
    """Norm of each tensor's difference over the norm of its recorded values: the median and the worst."""
    recorded = arrays(name)
    keys = [key for key in recorded if key.startswith(f"{prefix}/") and "@" not in key]
    parts = []
    for key in keys:
        wanted = recorded[key].reshape(-1)
        found = np.asarray(ours[key.partition("/")[2]]).reshape(-1)[:: int(recorded.get(f"{key}@stride", 1))]
        difference, size = np.linalg.norm(found - wanted), np.linalg.norm(wanted)
        # No box of this pair is on P5: its output convolution has gradient 0 on both sides.
        parts.append(difference / size if size else np.inf if difference else 0.0)
    if keys:
        worst = float(np.where(np.isfinite(parts), parts, np.inf).max())
        quantity = f"{quantity} of {len(keys)} tensors, relative"
        yield Row(name, f"{quantity}: median", MEDIAN_GRADIENT, float(np.median(parts)))
        yield Row(name, f"{quantity}: worst", WORST_GRADIENT, worst)


def trajectory_rows(form: str) -> Iterator[Row]:
    """Losses and gradient norm over four steps; later ones are chaotic."""
    name = {"mm": "traj_A", "orig": "orig_traj_A"}[form]
    metrics = run_steps(form, 4)[0]
    for step, (wanted, tolerance) in enumerate(zip(document(name), TRAJECTORY)):

        def difference(
            ours: str, theirs: str, found: dict[str, Any] = metrics[step], wanted: dict[str, Any] = wanted
        ) -> float:
            return float(abs(found[ours] - wanted[theirs]) / abs(wanted[theirs]))

        worst = float(np.max([difference(f"loss_{a}", b) for a, b in LOSSES[form].items()]))
        yield Row(name, f"step {step}: total loss, relative", tolerance, difference("loss", "total"))
        yield Row(name, f"step {step}: worst single loss, relative", tolerance, worst)
        norm = difference("gradient_norm", "grad_norm")
        yield Row(name, f"step {step}: gradient norm, relative", max(tolerance, 1e-3), norm)
