"""Train MaskTrack R-CNN and evaluate it.

python train.py --config configs/demo.py --workdir runs/demo [--config.key=value ...]

Several processes are one run where MASKTRACK_COORDINATOR is set, see masktrack_jax/runtime/processes.py.
"""

from absl import flags
from ml_collections import config_flags

from masktrack_jax.runtime import cli

CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of configs/.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; a run found there goes on.", required=True)
flags.mark_flag_as_required("config")


def main(_):
    """Do it as one of the processes of a run, see masktrack_jax/runtime/processes.py, or alone."""
    from masktrack_jax.runtime.processes import together

    with together():
        train_and_score()


def train_and_score():
    """Train, and score the validation split: on the way, or else then."""
    from masktrack_jax.checkpoints.store import variables_of
    from masktrack_jax.config.base import validate
    from masktrack_jax.data.splits import training_split
    from masktrack_jax.inference.split import evaluate_split, open_split
    from masktrack_jax.training.run import train

    config = validate(CONFIG.value)
    dataset = training_split(config)
    # What is wrong with the validation split shows now, not after the training.
    split = open_split(config, dataset.labels)

    def evaluate(variables):
        return evaluate_split(config, split, dataset.labels, variables, f"{WORKDIR.value}/metrics.json")

    state = train(config, dataset, WORKDIR.value, evaluate if split and split.labelled else None)
    if split and not config.train.evaluate_every:
        evaluate(variables_of(state))
    print(f"checkpoints, metrics.jsonl, tensorboard: {WORKDIR.value}")


if __name__ == "__main__":
    cli.launch(main)
