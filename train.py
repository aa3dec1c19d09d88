"""Train MaskTrack R-CNN and evaluate it.

python train.py --config configs/demo.py --workdir runs/demo [--profile STEPS] [--config.key=value ...]
python train.py --config configs/demo.py --print_config

To train with several processes, set MASKTRACK_COORDINATOR, see masktrack_jax/runtime/processes.py.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from masktrack_jax.config.base import obey_flags
from masktrack_jax.config.listing import config_keys, config_lines
from masktrack_jax.runtime import cli
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.memory import check_address_space

if TYPE_CHECKING:
    from masktrack_jax.checkpoints.store import Tree

CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of configs/.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; an existing run is resumed.")
PRINT_CONFIG = flags.DEFINE_bool("print_config", False, "Print every key of the config and exit.")
PROFILE = flags.DEFINE_integer(
    "profile",
    0,
    "Write a trace of so many steps to WORKDIR/profile, for TensorBoard and XProf.",
    lower_bound=0,
)
flags.mark_flag_as_required("config")


def main(_: Sequence[str]) -> None:
    """Train, or print the config."""
    if PRINT_CONFIG.value:
        if WORKDIR.value or PROFILE.value:
            name = "workdir" if WORKDIR.value else "profile"
            raise UserError(f"--print_config does not train; leave out --{name}, or leave out --print_config")
        print(*config_lines(obey_flags(CONFIG.value)), sep="\n")
        return
    if not WORKDIR.value:
        raise UserError("give --workdir, the folder of the run")
    check_address_space()
    from masktrack_jax.runtime.processes import process_group

    with process_group():
        train_and_score(obey_flags(CONFIG.value), WORKDIR.value, PROFILE.value)


def train_and_score(config: ConfigDict, workdir: str, profile: int = 0) -> None:
    """Train, and score the validation split every `train.evaluate_every` steps, or once at the end.

    See `train` for `profile`.
    """
    from masktrack_jax.checkpoints.mirror import mirrored
    from masktrack_jax.checkpoints.store import variables_of
    from masktrack_jax.config.base import validate
    from masktrack_jax.data.splits import training_split
    from masktrack_jax.inference.split import evaluate_split, open_split
    from masktrack_jax.training.run import train

    dataset = training_split(validate(config))
    # Opened before training, so that its errors appear immediately.
    split = open_split(config, dataset.labels)

    with mirrored(workdir, "use another --workdir") as folder:

        def evaluate(variables: "Tree") -> dict[str, Any] | None:
            return evaluate_split(config, split, dataset.labels, variables, f"{folder}/metrics.json")

        state = train(config, dataset, folder, evaluate if split and split.labelled else None, profile)
        if split and not config.train.evaluate_every:
            evaluate(variables_of(state))
    print(f"checkpoints, metrics.jsonl, tensorboard: {workdir}")


if __name__ == "__main__":
    cli.launch(main, config_keys)
