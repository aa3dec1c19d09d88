"""Measures the data pipeline alone in pairs per second: decoding, resizing, masks, batches.

    python -m benchmarks.data --config configs/masktrack_r50_fpn_youtubevis2019.py --workers 0 2

Reads generated 720p videos as JPEGs from a temporary folder. Prints a table, and then a JSON line.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from benchmarks.common import load_average, load_config, rounded
from masktrack_jax.data.generate.options import GeneratorOptions
from masktrack_jax.data.generate.write import generate
from masktrack_jax.data.options import PairOptions
from masktrack_jax.data.pipeline import training_batches
from masktrack_jax.data.vis import VisDataset, read_vis


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", required=True)
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[0], help="loader processes; 0: threads of this one"
    )
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--batches", type=int, default=12)
    arguments = parser.parse_args()
    options = PairOptions.from_config(load_config(arguments.config).data)
    with tempfile.TemporaryDirectory() as folder:
        generator = GeneratorOptions(videos=4, frames=8, height=720, width=1280, seed=1)
        dataset = read_vis(generate(Path(folder) / "data", generator))
        rates = {
            workers: pairs_a_second(
                dataset, options, workers, batch_size=arguments.batch_size, batches=arguments.batches
            )
            for workers in arguments.workers
        }
    print("workers  pairs/s")
    for workers, rate in rates.items():
        print(f"{workers:7d}  {rate:7.1f}")
    about = {"cores": os.cpu_count(), "load": load_average(), "batch_size": arguments.batch_size}
    print(json.dumps(rounded({"what": "data", **about, "pairs_a_second_by_workers": rates})))


def pairs_a_second(
    dataset: VisDataset, options: PairOptions, workers: int, *, batch_size: int, batches: int
) -> float:
    """Return the rate after the first two batches, which wait for processes to start."""
    loader = training_batches(dataset, options, seed=0, batch_size=batch_size, workers=workers)
    try:
        for _ in range(2):
            next(loader)
        started = time.perf_counter()
        for _ in range(batches):
            next(loader)
        return batches * batch_size / (time.perf_counter() - started)
    finally:
        loader.close()


if __name__ == "__main__":
    main()
