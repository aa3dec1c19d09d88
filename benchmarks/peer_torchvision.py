"""torchvision's Mask R-CNN R50-FPN, without tracking, in a process that `peer.Peer` starts and times.

The argument is a task as JSON. The process first prints its versions. For every line of its input it then
runs the task once and prints {stage: [seconds, processor seconds]}. It imports only torch and torchvision.
Weights and frames are random.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torchvision
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone


def main() -> None:
    """Run the task once per line of input, until the input ends."""
    task = json.loads(sys.argv[1])
    torch.manual_seed(0)
    work = {"inference": inference, "training": training}[task.pop("what")](**task)
    for _ in range(2):
        last = work()
    about = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    threads = torch.get_num_threads()
    print(json.dumps({**about, "threads": threads, "detections": last.pop("detections", None)}), flush=True)
    for _ in sys.stdin:
        stages = work()
        stages.pop("detections", None)
        print(json.dumps(stages), flush=True)


def network(classes: int, scale: Sequence[int], **options: float) -> MaskRCNN:
    """Return a network for frames that fit `scale` (long edge, short edge); stem and stage 1 are frozen."""
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=3)
    return MaskRCNN(backbone, classes + 1, min_size=scale[1], max_size=scale[0], **options)


def inference(
    *,
    classes: int,
    scale: Sequence[int],
    frame: Sequence[int],
    batch: int,
    proposals: int,
    detections: int,
    candidates: int,
) -> Callable[[], dict[str, Any]]:
    """Return a call that segments `batch` frames of size `frame` (h, w), without resizing and normalisation.

    The threshold is set so that `candidates` scores per frame pass. With random weights, a fixed threshold
    would pass all scores or none.
    """
    numbers = {"rpn_pre_nms_top_n_test": proposals, "rpn_post_nms_top_n_test": proposals}
    model = network(classes, scale, box_detections_per_img=detections, **numbers).eval()
    images, _ = model.transform([torch.rand(3, *frame) for _ in range(batch)])
    sizes, frames = images.image_sizes, [tuple(frame)] * batch

    @torch.inference_mode()
    def segment() -> dict[str, Any]:
        clock = Clock()
        features = model.backbone(images.tensors)
        clock.mark("backbone and FPN")
        boxes, _ = model.rpn(images, features)
        clock.mark("proposals")
        found, _ = model.roi_heads(features, boxes, sizes)
        clock.mark("boxes and masks")
        found = model.transform.postprocess(found, sizes, frames)
        clock.mark("paste")
        clock.stages["detections"] = sum(len(one["scores"]) for one in found) / batch
        return clock.stages

    with torch.inference_mode():
        features = model.backbone(images.tensors)
        heads, boxes = model.roi_heads, model.rpn(images, features)[0]
        logits = heads.box_predictor(heads.box_head(heads.box_roi_pool(features, boxes, sizes)))[0]
        scores = logits.softmax(-1)[:, 1:].flatten()
        heads.score_thresh = float(scores.topk(candidates * batch).values[-1])
    return segment


def training(
    *,
    classes: int,
    scale: Sequence[int],
    images: int,
    objects: int,
    proposals: int,
    rpn_samples: int,
    roi_samples: int,
) -> Callable[[], dict[str, Any]]:
    """Return a call that runs one SGD step on `images` images with `objects` objects each."""
    numbers = {f"rpn_{when}_nms_top_n_train": proposals for when in ("pre", "post")}
    numbers |= {"rpn_batch_size_per_image": rpn_samples, "box_batch_size_per_image": roi_samples}
    model = network(classes, scale, **numbers).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-8, momentum=0.9, weight_decay=1e-4)
    width, height = scale
    frames = [torch.rand(3, height, width) for _ in range(images)]
    corners = torch.rand(images, objects, 2) * torch.tensor([width, height]) * 0.6
    boxes = torch.cat([corners, corners + 40 + 90 * torch.rand(images, objects, 2)], -1)
    labels, masks = torch.arange(objects) % classes + 1, torch.ones(objects, height, width, dtype=torch.uint8)
    targets = [{"boxes": one, "labels": labels, "masks": masks} for one in boxes]

    def step() -> dict[str, Any]:
        clock = Clock()
        optimizer.zero_grad()
        sum(model(frames, targets).values()).backward()
        optimizer.step()
        clock.mark("step")
        return clock.stages

    return step


class Clock:
    """Collects in `stages` the (seconds, processor seconds) between marks."""

    def __init__(self) -> None:
        self.stages: dict[str, Any] = {}
        self._last = self._now()

    def mark(self, name: str) -> None:
        """End the stage `name`."""
        now = self._now()
        self.stages[name] = tuple(n - last for n, last in zip(now, self._last))
        self._last = self._now()

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()


if __name__ == "__main__":
    main()
