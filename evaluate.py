"""Score a checkpoint on a split, or a results file on its labels.

python evaluate.py --config configs/demo.py --checkpoint runs/demo [--output metrics.json]
python evaluate.py --annotations GT.json --results results.json --output metrics.json

--diagnose reports AP after correcting one kind of error at a time: as a table, in metrics.json, and with
plots and pictures in diagnosis.html beside it.
"""

import os
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from masktrack_jax.config.base import obey_flags
from masktrack_jax.config.listing import config_keys
from masktrack_jax.runtime import cli
from masktrack_jax.runtime.errors import UserError

CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of configs/.", lock_config=True)
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Folder of a checkpoint.")
ANNOTATIONS = flags.DEFINE_string("annotations", None, "Labels to score --results on.")
RESULTS = flags.DEFINE_string("results", None, "Results file to score.")
OUTPUT = flags.DEFINE_string(
    "output", "metrics.json", "File of the metrics; a checkpoint's results.json is written beside it."
)
DIAGNOSE = flags.DEFINE_bool("diagnose", False, "Report AP for each kind of error, see above.")
FRAMES = flags.DEFINE_string(
    "frames", None, "Folder of the frames for --diagnose's pictures; by default JPEGImages beside the labels."
)


def main(_: Sequence[str]) -> None:
    """Score a checkpoint or a results file, depending on the flags."""
    if FRAMES.value and not os.path.isdir(FRAMES.value):
        raise UserError(f"{FRAMES.value}: no such folder; check --frames")
    options = {"diagnosed": DIAGNOSE.value, "frames_root": FRAMES.value}
    if ANNOTATIONS.value and RESULTS.value:
        from masktrack_jax.evaluation.score import score_files

        score_files(ANNOTATIONS.value, RESULTS.value, OUTPUT.value, **options)
    elif CONFIG.value and CHECKPOINT.value:
        from masktrack_jax.inference.evaluate_checkpoint import evaluate_checkpoint
        from masktrack_jax.runtime.processes import process_group

        with process_group():
            evaluate_checkpoint(obey_flags(CONFIG.value), CHECKPOINT.value, OUTPUT.value, **options)
    else:
        raise UserError("give --config and --checkpoint, or --annotations and --results")


if __name__ == "__main__":
    cli.launch(main, config_keys)
