"""Times one batch of frames by stage, from pixels to encoded masks.

    python -m benchmarks.inference --config configs/masktrack_r50_fpn_youtubevis2019.py --detections 10
    python -m benchmarks.inference --config … --proposals 1000 --detections 100 --against torchvision

Weights and frames are random, and every frame has exactly the given number of detections. Prints a table, and
then a JSON line. torchvision does not track; our side still computes embeddings and encodes masks.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks.common import (
    NUM_CLASSES,
    Times,
    Variables,
    clock,
    compiled,
    load_config,
    plain_work,
    product_rate,
    random_network,
    report,
)
from benchmarks.peer import Peer, add_arguments, ratios
from masktrack_jax.masks.paste import encode_pasted
from masktrack_jax.models import box_head
from masktrack_jax.models.masktrack_rcnn import Detections, MaskTrackRCNN, normalise

FRAME_SIZE = (720, 1280)  # (height, width) of the encoded masks

Output = TypeVar("Output")  # of a stage


def main() -> None:
    """Run the benchmark."""
    arguments = parse_arguments()
    config = changed_config(arguments)
    peer = start_peer(arguments, config) if arguments.against else None
    model, variables = random_network(config)
    images, sizes = random_frames(config, arguments.batch)
    whole, compile_s = compiled(partial(model.apply, method="detect"), variables, images, sizes)
    found = jax.device_get(whole(variables, images, sizes))
    calls, work = stages(model, variables, images, sizes)
    parts = [*list(calls)[2:], "paste and RLE"]  # all but backbone and FPN
    calls["on the device"] = lambda: whole(variables, images, sizes)
    work["on the device"] = sum(work.values())
    calls["paste and RLE"] = partial(paste, found, config.inference.scale)
    rows = clock(calls, arguments.repeats, peer)
    frame = rows["on the device"]["seconds"] + rows["paste and RLE"]["seconds"]
    report(
        f"inference, {arguments.batch} × {arguments.detections}",
        rows,
        work,
        product_rate(),
        config=arguments.config,
        dtype=arguments.dtype,
        proposals=config.model.proposals.post_nms,
        detections=float(found.valid.sum()) / arguments.batch,
        compile_s=compile_s,
        frames_a_second=arguments.batch / frame,
        paste_share=rows["paste and RLE"]["seconds"] / frame,
        **(compare(rows, parts, peer) if peer else {}),
    )


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--detections", type=int, default=10)
    parser.add_argument("--proposals", type=int, help="proposals per frame; default: as in the config")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    add_arguments(parser)
    return parser.parse_args()


def changed_config(arguments: argparse.Namespace) -> ConfigDict:
    """Return the config with exactly the given numbers of proposals and detections."""
    config = load_config(arguments.config)
    config.model.dtype = arguments.dtype
    if arguments.proposals:
        config.model.proposals.update({"pre_nms": arguments.proposals, "post_nms": arguments.proposals})
    # All scores pass the threshold, and the best are kept.
    config.model.detections.update({"score_threshold": 0.0, "max_detections": arguments.detections})
    return config


def random_frames(config: ConfigDict, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Return noise images (B, H, W, 3) in the first bucket, and their sizes (B, 2) before padding."""
    height, width = config.data.buckets[0]
    images = np.random.default_rng(0).integers(0, 256, (batch, height, width, 3), np.uint8)
    return images, np.tile(np.array(config.inference.scale[::-1], np.int32), (batch, 1))


def start_peer(arguments: argparse.Namespace, config: ConfigDict) -> Peer:
    """Start a `Peer` with the same task, and one candidate per proposal."""
    proposals = config.model.proposals.post_nms
    numbers = {"batch": arguments.batch, "proposals": proposals, "detections": arguments.detections}
    sizes = {"scale": list(config.inference.scale), "frame": FRAME_SIZE, "classes": NUM_CLASSES}
    return Peer(
        *(arguments.against, arguments.peer_python),
        **{"what": "inference", "candidates": proposals, **numbers, **sizes},
    )


def compare(rows: dict[str, Times], parts: Sequence[str], peer: Peer) -> dict[str, Any]:
    """Return the ratios to the peer: of the features, of `parts` and of a whole frame."""
    peer.close()
    theirs = [
        f"{peer.name}: {stage}" for stage in ("backbone and FPN", "proposals", "boxes and masks", "paste")
    ]
    whole = ["on the device", "paste and RLE"]
    pairs = {
        "backbone and FPN": (["backbone", "FPN"], theirs[:1]),
        "all after it": (parts, theirs[1:]),
        "a frame": (whole, theirs),
    }
    return {"ratios": ratios(rows, pairs), "peer": peer.about}


def stages(
    model: MaskTrackRCNN, variables: Variables, images: np.ndarray, sizes: np.ndarray
) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """Return a call of each stage, compiled as a separate program, and the operations of each stage."""
    config, batch = model.config, len(images)
    calls: dict[str, Callable[[], object]] = {}
    work: dict[str, float] = {}

    def stage(name: str, function: Callable[..., Output], *arguments: object) -> Output:
        bound = nn.apply(function, model)
        program, _ = compiled(bound, variables, *arguments)
        calls[name] = partial(program, variables, *arguments)
        work[name] = plain_work(bound, variables, *arguments)
        return program(variables, *arguments)

    def boxes_of(
        model: MaskTrackRCNN, features: tuple[jax.Array, ...], proposals: jax.Array, valid: jax.Array
    ) -> box_head.SelectedDetections:
        logits, deltas = model.classify(model.pool(features, proposals, valid, 7), batch)
        options = {**config.detections, "clip_margin": model.clip_margin}
        return box_head.select_detections(logits, deltas, proposals, valid, sizes, **options)

    x = jax.jit(partial(normalise, dtype=model.dtype))(images, sizes)
    levels = stage("backbone", lambda m, x: m.backbone(x), x)
    features = stage("FPN", lambda m, levels: m.fpn(levels), levels)
    outputs = stage("RPN head", lambda m, f: m.rpn_head(f), features)
    anchors = model.anchors(*images.shape[1:3])
    proposals = stage("proposals", lambda m, *o: m.propose(*o, anchors, sizes), *outputs)
    found = stage("boxes", boxes_of, features, *proposals)
    described = features, found.boxes, found.labels, found.valid
    stage("masks, embeddings", lambda m, *a: m.masks_and_embeddings(*a), *described)
    # Loops count once in the operations of a program.
    work["masks, embeddings"] = heads_work(model, variables, features, int(found.valid.sum()))
    return calls, work


def heads_work(
    model: MaskTrackRCNN, variables: Variables, features: Sequence[jax.Array], count: int
) -> float:
    """Count the operations of the masks and embeddings of `count` detections."""
    large, small = (np.zeros((count, bins, bins, features[0].shape[-1]), model.dtype) for bins in (14, 7))
    heads = nn.apply(lambda m, large, small, labels: (m.mask_head(large, labels), m.track_head(small)), model)
    return plain_work(heads, variables, large, small, np.zeros(count, np.int32))


def paste(found: Detections, scale: tuple[int, int]) -> None:
    """Encode the masks of a batch of detections at the size of the frame, and discard them."""
    factor = np.array([FRAME_SIZE[1] / scale[0], FRAME_SIZE[0] / scale[1]] * 2, np.float32)
    for masks, boxes in zip(found.masks, found.boxes):
        encode_pasted(masks, boxes * factor, *FRAME_SIZE)


if __name__ == "__main__":
    main()
