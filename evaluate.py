"""Score a checkpoint on a split, or a results file on its labels.

python evaluate.py --config configs/demo.py --checkpoint runs/demo [--output metrics.json]
python evaluate.py --config configs/demo.py --checkpoint runs/demo --annotations GT.json [--frames FOLDER]
python evaluate.py --annotations GT.json --results results.json --output metrics.json

Without --annotations a checkpoint is scored on the validation split of the config.

--diagnose reports AP after correcting one kind of error at a time: as a table, in metrics.json, and with
plots and pictures in diagnosis.html beside it.
"""

from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from masktrack_jax.config.base import obey_flags
from masktrack_jax.config.listing import config_keys
from masktrack_jax.evaluation.flags import check_flags
from masktrack_jax.runtime import cli, copies
from masktrack_jax.runtime.memory import check_address_space
from masktrack_jax.runtime.remote import outputs

CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of configs/.", lock_config=True)
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Folder of a checkpoint.")
ANNOTATIONS = flags.DEFINE_string("annotations", None, "Labels to score on.")
RESULTS = flags.DEFINE_string("results", None, "Results file to score.")
OUTPUT = flags.DEFINE_string(
    "output", "metrics.json", "File of the metrics; a checkpoint's results.json is written beside it."
)
DIAGNOSE = flags.DEFINE_bool("diagnose", False, "Report AP for each kind of error, see above.")
FRAMES = flags.DEFINE_string(
    "frames",
    None,
    "Folder of the frames of --annotations, for --checkpoint and for the pictures of --diagnose; by default "
    "JPEGImages beside the labels.",
)


def main(_: Sequence[str]) -> None:
    """Score a checkpoint or a results file, depending on the flags."""
    chosen = (CHECKPOINT, ANNOTATIONS, RESULTS, OUTPUT, DIAGNOSE, FRAMES)
    changed = config_flags.get_override_values(flags.FLAGS["config"]) if CONFIG.value else {}
    annotations, results, frames = (copies.local(flag.value) for flag in (ANNOTATIONS, RESULTS, FRAMES))
    check_flags(
        {flag.name: flag.value for flag in chosen} | {"config": bool(CONFIG.value), "frames": frames}, changed
    )
    options = {"diagnosed": DIAGNOSE.value, "frames_root": frames}
    if RESULTS.value:
        from masktrack_jax.evaluation.score import score_files

        with outputs(OUTPUT.value) as output:
            score_files(annotations, results, output, **options)
    else:
        check_address_space()
        from masktrack_jax.inference.evaluate_checkpoint import evaluate_checkpoint
        from masktrack_jax.runtime.processes import process_group

        options["annotations"] = annotations
        with process_group(), outputs(OUTPUT.value) as output:
            evaluate_checkpoint(obey_flags(CONFIG.value), CHECKPOINT.value, output, **options)


if __name__ == "__main__":
    cli.launch(main, config_keys)
