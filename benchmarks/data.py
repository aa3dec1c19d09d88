"""Pairs a second of the data pipeline alone: decoding, resizing, masks, batches.

    python benchmarks/data.py --config configs/masktrack_r50_fpn_youtubevis2019.py --workers 0 2

Generated 720p videos as JPEGs in a temporary folder. Prints a table and, last, a JSON line.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from common import load_average, load_config, rounded

from masktrack_jax.data.generate.options import GeneratorOptions
from masktrack_jax.data.generate.write import generate
from masktrack_jax.data.options import PairOptions
from masktrack_jax.data.pipeline import training_batches
from masktrack_jax.data.vis import read_vis


def main():
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", required=True)
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[0], help="processes; 0: threads of this one"
    )
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--batches", type=int, default=12)
    arguments = parser.parse_args()
    options = PairOptions.from_config(load_config(arguments.config).data)
    with tempfile.TemporaryDirectory() as folder:
        made = GeneratorOptions(videos=4, frames=8, height=720, width=1280, seed=1)
        dataset = read_vis(generate(Path(folder) / "data", made))
        rates = {n: pairs_a_second(dataset, options, n, arguments) for n in arguments.workers}
    print("workers  pairs/s")
    for workers, rate in rates.items():
        print(f"{workers:7d}  {rate:7.1f}")
    about = {"cores": os.cpu_count(), "load": load_average(), "batch_size": arguments.batch_size}
    print(json.dumps(rounded({"what": "data", **about, "pairs_a_second_by_workers": rates})))


def pairs_a_second(dataset, options, workers, arguments):
    """The rate after the first two batches, which wait for processes to start."""
    batches = training_batches(dataset, options, seed=0, batch_size=arguments.batch_size, workers=workers)
    try:
        for _ in range(2):
            next(batches)
        started = time.perf_counter()
        for _ in range(arguments.batches):
            next(batches)
        return arguments.batches * arguments.batch_size / (time.perf_counter() - started)
    finally:
        batches.close()


if __name__ == "__main__":
    main()
