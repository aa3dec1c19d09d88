"""A process of tests/runtime/test_processes.py: `python -m tests.helpers.distributed_worker DATA FOLDER`."""

import os
import sys
from pathlib import Path

import jax
import numpy as np

from masktrack_jax.checkpoints import store
from masktrack_jax.data.splits import training_split
from masktrack_jax.inference import split as splits
from masktrack_jax.models.masktrack_rcnn import build_model
from masktrack_jax.runtime import cli
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.processes import process_group
from masktrack_jax.training.nonfinite import BadStep
from tests import conftest  # noqa: F401 – its settings, before JAX is used
from tests.helpers.training import Run, places, poisoned, signalled, tiny
from tests.helpers.xla import QUICK_COMPILATION


def evaluate(data, run, output):
    """Evaluate the checkpoint of `run`."""
    config = tiny(data)
    dataset = training_split(config)
    variables = store.load_variables(run, build_model(config, len(dataset.labels)))
    return splits.evaluate_split(config, dataset, dataset.labels, variables, output)


def outcome(block):
    """What a run raises, in words."""
    try:
        block()
    except (BadStep, SystemExit) as error:
        return f"{type(error).__name__} {error}"


def work(data, folder):
    me = jax.process_index()
    assert (jax.process_count(), jax.local_device_count(), jax.device_count()) == (2, 1, 2)
    run, pairs = Run(data), []

    def noted(step, batch):
        pairs.append((step, *places(batch)))
        return batch

    def only_here(change):
        """A `change` of the batches of process 1."""
        return change if me == 1 else lambda step, batch: batch

    def with_skipped(step, batch):
        batch = signalled(4, 15)(step, batch)
        provenance = batch.provenance._replace(skipped=batch.provenance.skipped + 1)
        return batch._replace(provenance=provenance)

    whole = run(folder / "whole", noted)
    np.savez(folder / f"state{me}", *jax.tree.leaves(whole))
    print(f"{me} pairs {pairs}", file=sys.stderr)
    print(f"{me} signal: {outcome(lambda: run(folder / 'signal', only_here(with_skipped)))}", file=sys.stderr)
    np.savez(folder / f"resumed{me}", *jax.tree.leaves(run(folder / "other")))
    print(f"{me} bad: {outcome(lambda: run(folder / 'bad', only_here(poisoned(5))))}", file=sys.stderr)
    scores = iter([0.2, 0.1])
    run(folder / "scored", evaluate=lambda variables: {"AP": next(scores)}, evaluate_every=3)
    metrics = evaluate(data, folder / "whole", folder / "scores" / "metrics.json")
    print(f"{me} AP {metrics['AP']}", file=sys.stderr)

    def breaks(step, batch):
        if step == 3:
            raise UserError("frame.jpg: broken")
        return batch

    run(folder / "broken", only_here(breaks))


def main(data, folder):
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=1 {QUICK_COMPILATION}"
    with process_group():
        work(Path(data), Path(folder))


if __name__ == "__main__":
    cli.run(main, *sys.argv[1:])
