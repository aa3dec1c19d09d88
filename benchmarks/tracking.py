"""Compares track heads, losses and association rules by how well they keep identities.

    python -m benchmarks.tracking                         # on 2 cores: an hour
    python -m benchmarks.tracking --preset hard-large     # for a GPU

Generates the data set (data/hard) and trains its detector (configs/hard.py, runs/hard) if they are missing.
Every head is then trained on the same RoI features for the same number of steps, once per seed. Every variant
is scored on unseen videos, with the detector's detections and with labelled boxes and masks instead. Prints a
table and writes its rows, one for each variant, input and seed, to benchmarks/results/tracking.json. `--split
tune` scores on other videos, on which the values of the variants were chosen.
"""

import argparse
import functools
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.serialization import msgpack_restore, msgpack_serialize
from ml_collections import ConfigDict
from tqdm import tqdm

from benchmarks.frozen import fit_head, keep_rois
from benchmarks.tracking_inputs import DetectedVideo, detect_split
from benchmarks.tracking_variants import HEADS, VARIANTS, Variant
from configs import hard, hard_large
from masktrack_jax.checkpoints import store
from masktrack_jax.checkpoints.metadata import read_metadata
from masktrack_jax.config.base import base_config
from masktrack_jax.data.generate.options import PRESETS, GeneratorOptions
from masktrack_jax.data.generate.write import generate
from masktrack_jax.data.json_files import write_json
from masktrack_jax.data.labels import check_labels
from masktrack_jax.data.options import PairOptions
from masktrack_jax.data.pipeline import training_batches
from masktrack_jax.data.vis import VisDataset, read_vis
from masktrack_jax.evaluation.diagnosis.report import diagnose
from masktrack_jax.evaluation.faults import Refusals
from masktrack_jax.evaluation.score import score
from masktrack_jax.evaluation.tracks import tracks_to_score
from masktrack_jax.inference.segmenter import VideoSegmenter
from masktrack_jax.losses.tracking import OVER_ROIS
from masktrack_jax.models import track_head
from masktrack_jax.models.masktrack_rcnn import MaskTrackRCNN, build_model
from masktrack_jax.runtime import cli
from masktrack_jax.runtime.files import whole
from masktrack_jax.tracking.options import AssociationOptions
from masktrack_jax.tracking.tracks import TrackOptions
from masktrack_jax.training.run import train

CONFIGS = {"hard": hard, "hard-large": hard_large}
# (number of videos, seed) of each split, by preset of the generator.
SPLITS = {
    "hard": {"train": (200, 21), "val": (40, 22), "tune": (30, 23)},
    "hard-large": {"train": (2000, 21), "val": (100, 22), "tune": (50, 23)},
}
METRICS = ("AP", "AP75", "HOTA", "AssA", "IDF1", "IDSW")

Json = dict[str, Any]
Embed = Callable[[np.ndarray], np.ndarray]  # RoI features (n, F) to embeddings (n, E)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = _parser().parse_args(arguments)
    data = {name: make_split(options.preset, name) for name in ("train", options.split)}
    detector = load_detector(options.preset, data["train"])
    inputs = detect_split(detector, data[options.split])
    truth = json.loads(data[options.split].annotations_path.read_text())
    chosen = {name: VARIANTS[name] for name in options.variants or VARIANTS}
    kept = functools.cache(lambda references: keep_pairs(detector, data["train"], references, options.pairs))
    rows = []
    for head in dict.fromkeys(variant.head for variant in chosen.values()):
        variants = {name: variant for name, variant in chosen.items() if variant.head == head}
        for seed in range(options.seeds):
            embed = None
            if head:
                samples = functools.partial(kept, references_of(head))
                embed = fit(detector.config, head, samples, options, seed)
            for name, variant in variants.items():
                for source, videos in inputs.items():
                    tracks = associate(detector.categories, videos, embed, variant)
                    row = {"variant": name, "input": source, "seed": seed} | measure(truth, tracks)
                    if source == "detections" and seed == 0:
                        row["AP, identities corrected"] = corrected_ap(truth, tracks)
                    rows.append(row)
                    print(json.dumps(rows[-1]))
    budget = {"split": options.split, "steps": options.steps, "pairs": options.pairs}
    output = options.output or f"benchmarks/results/tracking{options.preset[4:]}.json"
    write(Path(output), budget, {name: asdict(variant) for name, variant in chosen.items()}, rows)


def write(path: Path, budget: Json, variants: dict[str, Json], rows: list[Json]) -> None:
    """Write rows and variants, and print the table. Rows of other variants in the file stay."""
    if path.exists():
        before = json.loads(path.read_text())
        if {key: before[key] for key in budget} == budget:
            rows = [row for row in before["rows"] if row["variant"] not in variants] + rows
            variants = before["variants"] | variants
    rows.sort(key=lambda row: (row["input"], list(VARIANTS).index(row["variant"]), row["seed"]))
    write_json(path, budget | {"variants": variants, "rows": rows}, indent=1)
    print(table(rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="hard", choices=CONFIGS, help="of the generator")
    parser.add_argument("--split", default="val", choices=("val", "tune"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=500, help="training steps of a head")
    parser.add_argument("--pairs", type=int, default=800, help="frame pairs in the training set of the heads")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, metavar="NAME", help="default: all")
    parser.add_argument("--output", help="default: benchmarks/results/tracking.json, tracking-large.json")
    return parser


def make_split(preset: str, name: str) -> VisDataset:
    """Return the data set of a split; generates it if it is missing."""
    videos, seed = SPLITS[preset][name]
    wanted = GeneratorOptions(videos=videos, seed=seed, **PRESETS[preset])
    # "tune" is in a separate folder, because training expects one data set below its folder.
    path = Path("data", f"{preset}-tune" if name == "tune" else f"{preset}/{name}")
    return read_vis(generate(path, wanted))


@dataclass(frozen=True)
class Detector:
    """A trained network with its config."""

    config: ConfigDict
    model: MaskTrackRCNN
    variables: Json
    categories: list[tuple[int, str]]


def load_detector(preset: str, dataset: VisDataset) -> Detector:
    """Return the detector of a preset; trains it if it is missing or unfinished."""
    path = f"runs/{preset}"
    train(CONFIGS[preset].get_config(), dataset, path)
    about = read_metadata(path)
    model = build_model(about.config, len(about.categories))
    variables = store.load_variables(path, model)
    return Detector(about.config, model, variables, about.categories)


def keep_pairs(detector: Detector, dataset: VisDataset, references: str, pairs: int) -> tuple[Any, ...]:
    """Return the RoI features (`frozen.keep_rois`) for the losses that compare with `references`."""
    head = next(head for head in HEADS if references_of(head) == references)
    config = with_head(detector.config, head)
    size = config.train.batch_size
    batches = training_batches(dataset, PairOptions.from_config(config.data), seed=7, batch_size=size)
    some = tqdm(islice(batches, pairs // size), f"RoI features of {references}", pairs // size, disable=None)
    try:
        stream = (batch.pairs for batch in some)
        return keep_rois(detector.model, detector.variables, stream, config.train)
    finally:
        batches.close()


def references_of(head: str) -> str:
    """Return what the head's loss compares RoIs with: "objects" or "rois" of the reference frame."""
    track = with_head(base_config(), head).train.track
    return "rois" if track.loss in OVER_ROIS else "objects"


def with_head(config: ConfigDict, head: str) -> ConfigDict:
    """Return a copy of `config` with a head of `HEADS`."""
    config = config.copy_and_resolve_references()
    recipe = HEADS[head]
    config.model.track_head.update(recipe.track_head)
    config.train.track.update(recipe.track)
    config.train.track.roi.samples = 16
    config.optimizer.update({"learning_rate": 1e-3, "warmup_steps": 50})
    return config


def fit(
    config: ConfigDict,
    head: str,
    samples: Callable[[], tuple[Any, ...]],
    options: argparse.Namespace,
    seed: int,
) -> Embed:
    """Train a head on `samples()`, or read it from runs/, and return its embedding function."""
    config = with_head(config, head)
    steps = options.steps * HEADS[head].step_factor
    name = re.sub(r"\W+", "_", f"{head} {steps} steps {options.pairs} pairs seed {seed}")
    path = Path(f"runs/{options.preset}-heads") / f"{name}.msgpack"
    if not path.exists():
        params, history = fit_head(config, samples(), steps=steps, batch_size=16, seed=seed)
        print(
            f"{head}, seed {seed}: match accuracy {history['match_accuracy'][-100:].mean():.3f}", flush=True
        )
        with whole(path) as partial:
            partial.write_bytes(msgpack_serialize(jax.device_get(params)))
    params = msgpack_restore(path.read_bytes())
    network = track_head.build_track_head(config.model.track_head, jnp.float32)
    run, shape = jax.jit(network.apply), (7, 7, config.model.fpn.channels)

    def embed(features: np.ndarray) -> np.ndarray:
        padded = np.zeros((-(-max(len(features), 1) // 512) * 512, *shape), np.float32)
        padded[: len(features)] = features.reshape(-1, *shape)
        return np.asarray(run({"params": params}, padded))[: len(features)]

    return embed


def associate(
    categories: Sequence[tuple[int, str]],
    videos: Iterable[DetectedVideo],
    embed: Embed | None,
    variant: Variant,
) -> list[Json]:
    """Return the tracks of all videos under a variant, in the format of a results file."""
    segmenter = VideoSegmenter(
        None,  # the detections are given
        categories,
        association=AssociationOptions(**variant.association),
        tracks=TrackOptions(**variant.tracks),
    )
    tracks = []
    for video_id, frames in videos:
        if embed:
            embeddings = embed(np.concatenate([frame.embeddings for frame in frames]))
            stops = np.cumsum([len(frame.boxes) for frame in frames])[:-1]
            frames = [replace(frame, embeddings=e) for frame, e in zip(frames, np.split(embeddings, stops))]
        tracks += segmenter.finish(segmenter.associate(frames), video_id)
    return tracks


def measure(truth: Json, tracks: list[Json]) -> dict[str, float]:
    """Return the value of each of `METRICS`."""
    metrics = score(truth, tracks)
    return {name: metrics[name] for name in METRICS}


def corrected_ap(truth: Json, tracks: list[Json]) -> float:
    """Return AP with every identity error corrected, the limit for a tracker."""
    labels = check_labels(truth, "labels")
    checked = tracks_to_score(tracks, labels, Refusals("tracks"))
    return diagnose(labels, checked).report["corrected"]["identities"]


def table(rows: Sequence[Json]) -> str:
    """Format the rows: mean ± standard deviation over the seeds."""
    corrected = "AP, identities corrected"
    lines = [" | ".join(["| input", "variant", *METRICS, corrected, ""]).strip()]
    lines.append("| --- | --- |" + " ---: |" * (len(METRICS) + 1))
    for source, variant in dict.fromkeys((row["input"], row["variant"]) for row in rows):
        same = [row for row in rows if (row["input"], row["variant"]) == (source, variant)]
        cells = [_cell(name, np.array([row[name] for row in same], float)) for name in METRICS]
        last = same[0].get(corrected)
        cells.append("" if last is None else f"{last:.3f}")
        lines.append(f"| {source} | {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(name: str, values: np.ndarray) -> str:
    form = ".0f" if name == "IDSW" else ".3f"
    spread = values.std(ddof=1) if len(values) > 1 else 0.0
    return f"{values.mean():{form}} ± {spread:{form}}"


if __name__ == "__main__":
    cli.run(main)
