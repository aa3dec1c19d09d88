"""Score a checkpoint on a split, or a results file on its labels.

python evaluate.py --config configs/demo.py --checkpoint runs/demo [--output metrics.json]
python evaluate.py --annotations GT.json --results results.json --output metrics.json
"""

from absl import flags
from ml_collections import config_flags

from masktrack_jax import cli
from masktrack_jax.errors import UserError

CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of configs/.", lock_config=True)
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Folder of a checkpoint.")
ANNOTATIONS = flags.DEFINE_string("annotations", None, "Labels to score --results on.")
RESULTS = flags.DEFINE_string("results", None, "Results file to score.")
OUTPUT = flags.DEFINE_string(
    "output", "metrics.json", "Where the metrics go; results.json of a checkpoint goes beside."
)


def main(_):
    """Score what the flags name."""
    if ANNOTATIONS.value and RESULTS.value:
        from masktrack_jax.evaluation.score import score_files

        score_files(ANNOTATIONS.value, RESULTS.value, OUTPUT.value)
    elif CONFIG.value and CHECKPOINT.value:
        from masktrack_jax import checkpoints, predictor
        from masktrack_jax.config import validate
        from masktrack_jax.models.masktrack_rcnn import build_model

        config = validate(CONFIG.value)
        categories = checkpoints.read_about(CHECKPOINT.value).categories
        dataset = predictor.open_split(config, categories)
        if dataset is None:
            raise UserError(
                "config.data: names nothing to evaluate; set val_annotations, or root and val_split"
            )
        variables = checkpoints.load_variables(CHECKPOINT.value, build_model(config, len(categories)))
        predictor.evaluate_split(config, dataset, categories, variables, OUTPUT.value)
    else:
        raise UserError("give --config and --checkpoint, or --annotations and --results")


if __name__ == "__main__":
    cli.launch(main)
