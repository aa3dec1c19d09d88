"""Time of one batch of frames by stage, from pixels to encoded masks.

    python benchmarks/inference.py --config configs/masktrack_r50_fpn_youtubevis2019.py --detections 10
    python benchmarks/inference.py --config … --proposals 1000 --detections 100 --against torchvision

Random weights and frames; every frame has exactly so many detections. Prints a table and, last, a JSON line.
Beside torchvision, which does not track, ours makes its embeddings and encodes its masks all the same.
"""

import argparse
from functools import partial

import flax.linen as nn
import jax
import numpy as np
from common import NUM_CLASSES, clock, compiled, load_config, plain_work, product_rate, random_network, report
from peer import Peer, add_arguments, ratios

from masktrack_jax.masks.paste import encode_pasted
from masktrack_jax.models import box_head
from masktrack_jax.models.masktrack_rcnn import normalise

PASTED = (720, 1280)  # the size of the frame that masks are encoded at


def main():
    """Measure what the command line asks for."""
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


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--detections", type=int, default=10)
    parser.add_argument("--proposals", type=int, help="of a frame; else as in the config")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    add_arguments(parser)
    return parser.parse_args()


def changed_config(arguments):
    """The config, with so many proposals and detections and no others."""
    config = load_config(arguments.config)
    config.model.dtype = arguments.dtype
    if arguments.proposals:
        config.model.proposals.update({"pre_nms": arguments.proposals, "post_nms": arguments.proposals})
    # Above every threshold, and cut.
    config.model.detections.update({"score_threshold": 0.0, "max_detections": arguments.detections})
    return config


def random_frames(config, batch):
    """Images (B, H, W, 3) of noise in the first bucket, and the sizes of what they hold."""
    height, width = config.data.buckets[0]
    images = np.random.default_rng(0).integers(0, 256, (batch, height, width, 3), np.uint8)
    return images, np.tile(np.array(config.inference.scale[::-1], np.int32), (batch, 1))


def start_peer(arguments, config):
    """A `Peer` that does the same, of candidates for a detection one a proposal."""
    proposals = config.model.proposals.post_nms
    numbers = {"batch": arguments.batch, "proposals": proposals, "detections": arguments.detections}
    sizes = {"scale": list(config.inference.scale), "frame": PASTED, "classes": NUM_CLASSES}
    return Peer(
        *(arguments.against, arguments.peer_python),
        **{"what": "inference", "candidates": proposals, **numbers, **sizes},
    )


def compare(rows, parts, peer):
    """Ratios to the peer of the features, of `parts` and of a frame."""
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


def stages(model, variables, images, sizes):
    """{stage: call} of programs of their own and {stage: operations}."""
    config, batch = model.config, len(images)
    calls, work, results = {}, {}, {}

    def stage(name, function, *arguments):
        bound = nn.apply(function, model)
        program, _ = compiled(bound, variables, *arguments)
        calls[name] = partial(program, variables, *arguments)
        work[name] = plain_work(bound, variables, *arguments)
        results[name] = program(variables, *arguments)
        return results[name]

    def boxes_of(model, features, proposals, valid):
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


def heads_work(model, variables, features, count):
    """Operations of the masks and embeddings of `count` detections."""
    large, small = (np.zeros((count, bins, bins, features[0].shape[-1]), model.dtype) for bins in (14, 7))
    heads = nn.apply(lambda m, large, small, labels: (m.mask_head(large, labels), m.track_head(small)), model)
    return plain_work(heads, variables, large, small, np.zeros(count, np.int32))


def paste(found, scale):
    """Encode the masks of a batch of detections at the size of the frame."""
    factor = np.array([PASTED[1] / scale[0], PASTED[0] / scale[1]] * 2, np.float32)
    return [encode_pasted(m, b * factor, *PASTED) and 0 for m, b in zip(found.masks, found.boxes)]


if __name__ == "__main__":
    main()
