"""Compile inference and the training step for an accelerator that is not here, and say what to expect of it.

    python -m masktrack_jax.plan --config configs/masktrack_r50_fpn_youtubevis2019.py --target v5e:2x2
    python -m masktrack_jax.plan --config … --target h100 --batch 16 --program detect --json plan.json

Prints whether each program fits into the memory, its time by part, its loops, its largest operations, and the
hours of the whole recipe. Times are estimates, see docs/plan.md. Flags such as --config.model.dtype=bfloat16
set keys of the config. The compilers are wheels: pip install "masktrack-jax[tpu]" or "masktrack-jax[cuda]".
"""

import json
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from masktrack_jax.config.base import obey_flags
from masktrack_jax.config.listing import config_keys
from masktrack_jax.plan.targets import check_compiler, find_target, prepare
from masktrack_jax.runtime import cli
from masktrack_jax.runtime.files import make_folder, whole

CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of configs/.", lock_config=True)
TARGET = flags.DEFINE_string(
    "target", None, "v5e:2x2, v5p:2x2x1, v6e:2x2, h100, h100:8 or cpu.", required=True
)
PROGRAM = flags.DEFINE_enum("program", "both", ("both", "detect", "train"), "The program to plan.")
BATCH = flags.DEFINE_integer(
    "batch",
    None,
    "Frames of a call of detect, and pairs of a training step over all chips; by default "
    "config.inference.frames_per_call and config.train.batch_size.",
    lower_bound=1,
)
FRAMES = flags.DEFINE_integer(
    "frames", None, "Labelled frames of the data set, if it is not here.", lower_bound=1
)
CLASSES = flags.DEFINE_integer(
    "classes", None, "Categories of the data set, if it is not here; 40 by default.", lower_bound=1
)
JSON = flags.DEFINE_string("json", None, "File to write the numbers to.")
HLO = flags.DEFINE_string("hlo", None, "Folder to write the compiled programs to, as text.")
flags.mark_flag_as_required("config")


def main(_: Sequence[str]) -> None:
    """Plan the programs, print them and write the file."""
    target = find_target(TARGET.value)
    check_compiler(target)
    if JSON.value:
        make_folder(Path(JSON.value).parent)  # before the long work, not after it
    if HLO.value:
        make_folder(HLO.value)
    prepare(target)
    # Not at the top, so that JAX starts as `prepare` wants it.
    from masktrack_jax.config.base import validate
    from masktrack_jax.plan.plan import Wanted, plans
    from masktrack_jax.plan.report import as_json, lines

    config = validate(obey_flags(CONFIG.value))
    names = ("detect", "train") if PROGRAM.value == "both" else (PROGRAM.value,)
    wanted = Wanted(names, BATCH.value, FRAMES.value, CLASSES.value, HLO.value)
    found = {}
    for plan in plans(config, target, wanted):
        print(*lines(plan), sep="\n", flush=True)
        found[plan.name] = as_json(plan)
    if JSON.value:
        with whole(JSON.value) as partial:
            Path(partial).write_text(json.dumps(found, indent=1))
        print(JSON.value)


if __name__ == "__main__":
    cli.launch(main, config_keys)
