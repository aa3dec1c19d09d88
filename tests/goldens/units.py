"""Single operations against `units` (mmcv, mmdet) and `units_legacy` (the authors' form)."""

from collections.abc import Callable, Iterator
from functools import partial

import jax
import numpy as np

from masktrack_jax.masks.paste import paste_masks
from masktrack_jax.models import box_head, rpn_head
from masktrack_jax.models.masktrack_rcnn import normalise
from masktrack_jax.ops import boxes as box_ops
from masktrack_jax.ops.anchors import base_anchors
from masktrack_jax.ops.nms import nms
from masktrack_jax.ops.roi_align import roi_align
from masktrack_jax.ops.roi_samples import RoIAlignOptions
from masktrack_jax.video.images import fit_size, pad_image, resize_image

from .inputs import make_clip
from .recorded import Row, arrays, largest, nchw, relative, sampled, unequal

CODER, ROI, PIXEL_VALUES = 2e-5, 5e-5, 2e-6
STDS = {"rpn": rpn_head.STDS, "rcnn": box_head.STDS}
pool = jax.jit(roi_align, static_argnames=("strides", "options", "bins"))


def continuous(boxes: np.ndarray) -> np.ndarray:
    """Convert boxes that name their last pixel to ours, which end where it ends."""
    return np.asarray(boxes, np.float32) + np.array([0, 0, 1, 1], np.float32)


def rows() -> Iterator[Row]:
    yield from coder("units", "", np.asarray, (360, 480), 0.0)
    yield from coder("units", "legacy_", continuous, (360, 480), 1.0)
    yield from coder("units_legacy", "", continuous, (90, 120), 1.0)
    yield from suppression("units", "", np.asarray)
    yield from suppression("units", "offset1_", continuous)
    yield from suppression("units_legacy", "", continuous)
    yield from roi_features()
    yield from preprocessing()
    yield from pasting()
    legacy = arrays("units_legacy")
    boxes = continuous(legacy["coder_boxes"][:32])
    yield Row("units_legacy", "IoU", 1e-6, largest(box_ops.pairwise_iou(boxes, boxes), legacy["iou_plus1"]))
    anchors = [base_anchors(stride, 8.0, (0.5, 1.0, 2.0), 0.5, True) for stride in (4, 8, 16, 32, 64)]
    yield Row("units_legacy", "base anchors", 0, largest(anchors, continuous(legacy["base_anchors"])))


def coder(
    name: str,
    form: str,
    convert: Callable[[np.ndarray], np.ndarray],
    image_size: tuple[int, int],
    margin: float,
) -> Iterator[Row]:
    """Box deltas, and boxes from deltas, clipped to the image; both relative where larger than 1."""
    recorded = arrays(name)
    anchors, objects = convert(recorded["coder_boxes"]), convert(recorded["coder_gt"])
    for head, stds in STDS.items():
        ours = box_ops.encode(anchors, objects, stds)
        key = f"coder_encode_{form}{head}"
        yield Row(name, key, CODER, relative(ours, recorded[key]))
        key = f"coder_decode_{form}{head}"
        ours = box_ops.decode(anchors, recorded["coder_deltas"], stds)
        if (name, form) == ("units", "legacy_"):
            # mmdet 2's own compromise, which neither implementation uses: widths + 1, but corners half a
            # pixel off those of mmdet 1.
            ours = continuous(np.clip(ours - 0.5, 0, np.array(image_size)[[1, 0, 1, 0]] - 1))
        ours = box_ops.clip(ours, np.array(image_size), margin)
        yield Row(name, key, CODER, relative(ours, convert(recorded[key])))


def suppression(name: str, form: str, convert: Callable[[np.ndarray], np.ndarray]) -> Iterator[Row]:
    recorded = arrays(name)
    order = np.argsort(-recorded["nms_scores"], kind="stable")
    boxes, valid = convert(recorded["nms_boxes"])[order], np.ones(len(order), bool)
    for threshold in (0.5, 0.7):
        key = f"nms_keep_{form}{threshold}"
        kept = order[np.asarray(nms(boxes, valid, threshold))]
        yield Row(name, f"{key}: wrong indices", 0, unequal(kept, recorded[key]))
        key = f"batched_nms_keep_{threshold}"
        if not form and key in recorded:
            kept = order[np.asarray(nms(boxes, valid, threshold, recorded["nms_ids"][order]))]
            yield Row(name, f"{key}: wrong indices", 0, unequal(kept, recorded[key]))


def roi_features() -> Iterator[Row]:
    """RoIAlign of one level; the boxes reach far out of it."""
    for bins in (7, 14):
        for sampling in (0, 2):
            for aligned in (True, False):
                options = RoIAlignOptions(56.0, sampling, aligned, 0.0 if aligned else 1.0, extent=5.0)
                key = f"ra_aligned{aligned:d}_sr{sampling}_o{bins}"
                yield _roi_row("units", key, np.asarray, options, bins)
        key = f"ra_legacy_sr2_o{bins}"
        options = RoIAlignOptions(56.0, 2, aligned=False, min_size=0.0, extent=5.0)
        yield _roi_row("units_legacy", key, continuous, options, bins)


def _roi_row(
    name: str,
    key: str,
    convert: Callable[[np.ndarray], np.ndarray],
    options: RoIAlignOptions,
    bins: int,
) -> Row:
    recorded = arrays(name)
    feature = recorded["ra_feat"].transpose(0, 2, 3, 1)
    image, boxes = recorded["ra_rois"][:, 0].astype(int), convert(recorded["ra_rois"][:, 1:])
    valid = np.stack([image == 0, image == 1])
    ours = pool((feature,), (4,), np.stack([boxes, boxes]), valid, options, bins=bins)
    ours = np.asarray(ours)[image, np.arange(len(boxes))]
    return Row(name, key, ROI, largest(nchw(ours), recorded[key]))


def preprocessing() -> Iterator[Row]:
    """The resize rule, resized frames and the network's input, from uint8 (f320) and from float32 (f321)."""
    recorded = arrays("units")
    table = recorded["resize_rule"]
    sizes = [fit_size(height, width, 640, 360) for height, width in table[:, :2].tolist()]
    yield Row("units", "resize_rule: wrong sizes", 0, unequal(sizes, table[:, 2:]))
    for height, width, objects in ((720, 1280, 5), (97, 131, 2)):
        frame = make_clip(2, 1, height, width, objects)["frames"][0]
        size = fit_size(height, width, 640, 360)
        for is_float, image in enumerate((frame, frame.astype(np.float32))):
            key = f"prep_{height}x{width}_f32{is_float}"
            resized = resize_image(image, *size)
            stride = max(1, resized.size // 8192) | 1
            difference = largest(resized.reshape(-1)[::stride], recorded[f"{key}_resized_sample"])
            # Releases of OpenCV differ in the last bit of a float32 resize.
            yield Row("units", f"{key}: resized", 1e-4 if is_float else 0, difference)
            padded = pad_image(resized, *(-(-side // 32) * 32 for side in size))
            network = jax.jit(partial(normalise))(padded[None], np.array([size]))
            difference = sampled(recorded, f"{key}_net", nchw(network))
            yield Row("units", f"{key}: network input", PIXEL_VALUES, difference)


def pasting() -> Iterator[Row]:
    recorded = arrays("units")
    probabilities, boxes, wanted = (recorded[f"paste_{key}"] for key in ("masks", "boxes", "out"))
    masks = paste_masks(probabilities, boxes, *wanted.shape[1:])
    yield Row("units", "paste: wrong pixels", 0, unequal(masks, wanted >= 0.5))
