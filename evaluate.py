"""Score a checkpoint on a split, or a results file on its labels.

python evaluate.py --config configs/demo.py --checkpoint runs/demo [--output metrics.json]
python evaluate.py --annotations GT.json --results results.json --output metrics.json

--diagnose says why the number is low: AP after correcting one kind of error at a time, as a table, in
metrics.json, and with plots and pictures in diagnosis.html beside it.
"""

import os

from absl import flags
from ml_collections import config_flags

from masktrack_jax.runtime import cli
from masktrack_jax.runtime.errors import UserError

CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of configs/.", lock_config=True)
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Folder of a checkpoint.")
ANNOTATIONS = flags.DEFINE_string("annotations", None, "Labels to score --results on.")
RESULTS = flags.DEFINE_string("results", None, "Results file to score.")
OUTPUT = flags.DEFINE_string(
    "output", "metrics.json", "Where the metrics go; results.json of a checkpoint goes beside."
)
DIAGNOSE = flags.DEFINE_bool("diagnose", False, "Tell the kinds of error apart, see above.")
FRAMES = flags.DEFINE_string(
    "frames", None, "Folder of the frames for --diagnose's pictures; by default JPEGImages beside the labels."
)


def main(_):
    """Score what the flags name."""
    if FRAMES.value and not os.path.isdir(FRAMES.value):
        raise UserError(f"{FRAMES.value}: no such folder; check --frames")
    if ANNOTATIONS.value and RESULTS.value:
        from masktrack_jax.evaluation.score import score_files

        score_files(
            ANNOTATIONS.value,
            RESULTS.value,
            OUTPUT.value,
            diagnosed=DIAGNOSE.value,
            frames_root=FRAMES.value,
        )
    elif CONFIG.value and CHECKPOINT.value:
        from masktrack_jax.runtime.processes import together

        with together():
            evaluate_checkpoint()
    else:
        raise UserError("give --config and --checkpoint, or --annotations and --results")


def evaluate_checkpoint():
    """Segment the validation split with a checkpoint, and score that."""
    from masktrack_jax.checkpoints import store as checkpoints
    from masktrack_jax.config.base import validate
    from masktrack_jax.config.presets import form_differences
    from masktrack_jax.inference.split import evaluate_split, open_split
    from masktrack_jax.models.masktrack_rcnn import build_model

    config, about = validate(CONFIG.value), checkpoints.read_about(CHECKPOINT.value)
    for key, ours, theirs in form_differences(config, about.config):
        problem = f"is of config.model.{key}={theirs}, not {ours}"
        raise UserError(f"{CHECKPOINT.value}: {problem}; give a --config of its form")
    categories = about.categories
    dataset = open_split(config, categories)
    if dataset is None:
        raise UserError("config.data: names nothing to evaluate; set val_annotations, or root and val_split")
    variables = checkpoints.load_variables(CHECKPOINT.value, build_model(config, len(categories)))
    evaluate_split(
        config,
        dataset,
        categories,
        variables,
        OUTPUT.value,
        diagnosed=DIAGNOSE.value,
        frames_root=FRAMES.value,
    )


if __name__ == "__main__":
    cli.launch(main)
