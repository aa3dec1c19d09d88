"""torchvision's Mask R-CNN R50-FPN, without tracking, as a process that `peer.Peer` starts and times.

Takes a task as JSON and says that it is ready; then for every line of its input it does the task once and
prints {stage: [seconds, processor seconds]}. Imports nothing of ours. Random weights and frames.
"""

import json
import sys
import time

import torch
import torchvision
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone


def main():
    """Answer line by line until the input ends."""
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


def network(classes, scale, **options):
    """A network for frames resized to fit `scale` (long edge, short edge); stem and stage 1 are frozen."""
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=3)
    return MaskRCNN(backbone, classes + 1, min_size=scale[1], max_size=scale[0], **options)


def inference(classes, scale, frame, batch, proposals, detections, candidates):
    """A call that segments `batch` frames of `frame` (h, w); resizing and normalising are not timed.

    `candidates`: how many scores of a frame lie above the threshold; with random weights either all would or
    none.
    """
    numbers = {"rpn_pre_nms_top_n_test": proposals, "rpn_post_nms_top_n_test": proposals}
    model = network(classes, scale, box_detections_per_img=detections, **numbers).eval()
    images, _ = model.transform([torch.rand(3, *frame) for _ in range(batch)])
    sizes, frames = images.image_sizes, [tuple(frame)] * batch

    @torch.inference_mode()
    def segment():
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


def training(classes, scale, images, objects, proposals, rpn_samples, roi_samples):
    """A call that makes one step of SGD on so many images with so many objects each."""
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

    def step():
        clock = Clock()
        optimizer.zero_grad()
        sum(model(frames, targets).values()).backward()
        optimizer.step()
        clock.mark("step")
        return clock.stages

    return step


class Clock:
    """`stages`: {name: (seconds, processor seconds)} since the mark before."""

    def __init__(self):
        self.stages, self._last = {}, self._now()

    def mark(self, name):
        """The stage `name` ends here."""
        now = self._now()
        self.stages[name] = tuple(n - last for n, last in zip(now, self._last))
        self._last = self._now()

    @staticmethod
    def _now():
        return time.perf_counter(), time.process_time()


if __name__ == "__main__":
    main()
