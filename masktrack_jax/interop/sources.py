"""What each source calls its parameters and does differently, taken to mmdet's names and forms.

mmdet's: normalised RGB in, background class last, boxes and masks of the classes alone, and a batch norm
epsilon of 1e-5.
"""

import itertools
import re
from typing import NamedTuple

import numpy as np

from masktrack_jax.interop.category_lists import COCO_IDS
from masktrack_jax.interop.names import BOX, MASK
from masktrack_jax.models.masktrack_rcnn import STD
from masktrack_jax.runtime.errors import UserError

SOURCES = ("mmtracking", "original", "mmdet", "torchvision", "detectron2", "detectron2-pytorch")
EPSILON = 1e-5  # of every batch norm here, and nearly everywhere else
LOGITS, DELTAS, MASKS = f"{BOX}.fc_cls", f"{BOX}.fc_reg", f"{MASK}.conv_logits"
STEM = "backbone.conv1.weight"
D2 = r"backbone\.bottom_up\."

# How a name begins in the source, and in mmdet: the first that fits.
OPENMMLAB = (
    (r"detector\.", lambda: ""),
    (r"bbox_head\.", lambda: f"{BOX}."),
    (r"mask_head\.", lambda: f"{MASK}."),
    (r"track_head\.fcs\.", lambda: "track_head.embed_head.fcs."),
)
TORCHVISION = (
    (r"(?:backbone\.body\.)?(conv1|bn1|layer\d)\.", lambda part: f"backbone.{part}."),
    (r"backbone\.fpn\.inner_blocks\.(\d)\.(?:0\.)?", lambda i: f"neck.lateral_convs.{i}.conv."),
    (r"backbone\.fpn\.layer_blocks\.(\d)\.(?:0\.)?", lambda i: f"neck.fpn_convs.{i}.conv."),
    (r"rpn\.head\.conv\.(?:0\.0\.)?", lambda: "rpn_head.rpn_conv."),
    (r"rpn\.head\.cls_logits\.", lambda: "rpn_head.rpn_cls."),
    (r"rpn\.head\.bbox_pred\.", lambda: "rpn_head.rpn_reg."),
    (r"roi_heads\.box_head\.fc([67])\.", lambda i: f"{BOX}.shared_fcs.{int(i) - 6}."),
    (r"roi_heads\.box_predictor\.cls_score\.", lambda: f"{BOX}.fc_cls."),
    (r"roi_heads\.box_predictor\.bbox_pred\.", lambda: f"{BOX}.fc_reg."),
    (r"roi_heads\.mask_head\.mask_fcn(\d)\.", lambda i: f"{MASK}.convs.{int(i) - 1}.conv."),
    (r"roi_heads\.mask_head\.(\d)\.0\.", lambda i: f"{MASK}.convs.{i}.conv."),
    (r"roi_heads\.mask_predictor\.conv5_mask\.", lambda: f"{MASK}.upsample."),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits\.", lambda: f"{MASK}.conv_logits."),
)
DETECTRON2 = (
    (D2 + r"stem\.conv1\.norm\.", lambda: "backbone.bn1."),
    (D2 + r"stem\.conv1\.", lambda: "backbone.conv1."),
    (D2 + r"res(\d)\.(\d+)\.conv(\d)\.norm\.", lambda s, b, c: f"backbone.layer{int(s) - 1}.{b}.bn{c}."),
    (D2 + r"res(\d)\.(\d+)\.shortcut\.norm\.", lambda s, b: f"backbone.layer{int(s) - 1}.{b}.downsample.1."),
    (D2 + r"res(\d)\.(\d+)\.shortcut\.", lambda s, b: f"backbone.layer{int(s) - 1}.{b}.downsample.0."),
    (D2 + r"res(\d)\.", lambda s: f"backbone.layer{int(s) - 1}."),
    (r"backbone\.fpn_lateral(\d)\.", lambda i: f"neck.lateral_convs.{int(i) - 2}.conv."),
    (r"backbone\.fpn_output(\d)\.", lambda i: f"neck.fpn_convs.{int(i) - 2}.conv."),
    (r"proposal_generator\.rpn_head\.conv\.", lambda: "rpn_head.rpn_conv."),
    (r"proposal_generator\.rpn_head\.objectness_logits\.", lambda: "rpn_head.rpn_cls."),
    (r"proposal_generator\.rpn_head\.anchor_deltas\.", lambda: "rpn_head.rpn_reg."),
    (r"roi_heads\.box_head\.fc(\d)\.", lambda i: f"{BOX}.shared_fcs.{int(i) - 1}."),
    (r"roi_heads\.box_predictor\.cls_score\.", lambda: f"{BOX}.fc_cls."),
    (r"roi_heads\.box_predictor\.bbox_pred\.", lambda: f"{BOX}.fc_reg."),
    (r"roi_heads\.mask_head\.mask_fcn(\d)\.", lambda i: f"{MASK}.convs.{int(i) - 1}.conv."),
    (r"roi_heads\.mask_head\.deconv\.", lambda: f"{MASK}.upsample."),
    (r"roi_heads\.mask_head\.predictor\.", lambda: f"{MASK}.conv_logits."),
)
RENAMES = {
    "torchvision": TORCHVISION,
    "detectron2": DETECTRON2,
    "detectron2-pytorch": DETECTRON2,
}


class Translated(NamedTuple):
    """A file in mmdet's names and forms."""

    tensors: dict  # mmdet's name: array
    origin: dict  # mmdet's name: the file's, and its shape there
    classes: int | None  # without the background; None where no layer depends on them
    epsilon: float  # that its batch norm had


def translate(file, source, epsilon=None):
    """`Translated` of a `WeightsFile`; `epsilon` None: the source's own.

    Raises a UserError for a file of another source, and where the layers of the classes are not of its form.
    """
    check_source(file, source)
    tensors, origin = {}, {}
    for name, value in file.tensors.items():
        new = rename(name, RENAMES.get(source, OPENMMLAB))
        tensors[new], origin[new] = value, (name, value.shape)
    classes = count_classes(file, tensors, origin, background_first(file, source))
    if background_first(file, source):
        drop_background(tensors, coco_ids=source == "torchvision" and classes == 90)
        classes = 80 if source == "torchvision" and classes == 90 else classes
    if source == "detectron2" and tensors[STEM].shape[1:] == (3, 7, 7):
        # It takes BGR less its mean, we take RGB less its mean over STD.
        tensors[STEM] = tensors[STEM][:, ::-1] * np.asarray(STD, np.float32)[:, None, None]
    if epsilon is None:
        epsilon = usual_epsilon(file.tensors)
    if epsilon != EPSILON:
        move_epsilon(file.path, tensors, epsilon)
    return Translated(tensors, origin, classes, epsilon)


def rename(name, rules):
    """The name with its beginning replaced by the first rule that fits, if any."""
    for pattern, make in rules:
        if found := re.match(pattern, name):
            return make(*found.groups()) + name[found.end() :]
    return name


def guess_source(names):
    """The source whose names these are (detectron2 for both of its styles), or None."""
    if "detector.backbone.conv1.weight" in names:
        return "mmtracking"
    if "backbone.bottom_up.stem.conv1.weight" in names:
        return "detectron2"
    if "backbone.body.conv1.weight" in names or "conv1.weight" in names:
        return "torchvision"
    if "backbone.conv1.weight" in names:
        return "original" if "track_head.fcs.0.weight" in names else "mmdet"
    return None


def check_source(file, source):
    """Raises a UserError where the file shows that it is not of this source."""
    likely = guess_source(file.tensors)
    if likely is None:
        some = ", ".join(sorted(file.tensors)[:2])
        raise UserError(f"{file.path}: holds no ResNet of a known source, but {some}, …; give another file")
    if likely == "detectron2" and "pixel_std" in file.tensors:
        likely = "detectron2" if np.all(file.tensors["pixel_std"] == 1) else "detectron2-pytorch"
    elif source.startswith(likely):
        likely = source
    if likely != source:
        raise UserError(f"{file.path}: is of {likely}, not of {source}; give --source {likely}")
    if file.caffe:
        raise UserError(f"{file.path}: its config has style='caffe', which is read of detectron2 only")


def background_first(file, source):
    """Whether class 0 is the background: before mmdet 2.0, and in torchvision."""
    return source in ("original", "torchvision") or "bbox_head.fc_cls.weight" in file.tensors


def count_classes(file, tensors, origin, background):
    """The number of classes by the class logits, or the mask logits; None where neither is there.

    Raises a UserError where the layers disagree; `background`: boxes and masks have one for it too.
    """
    logits, masks = (f"{name}.weight" for name in (LOGITS, MASKS))
    if logits not in tensors and masks not in tensors:
        return None
    rows = {name: x.shape[0] if x.ndim else 0 for name, x in tensors.items()}
    classes = rows[logits] - 1 if logits in tensors else rows[masks] - background
    wanted = {LOGITS: classes + 1, DELTAS: 4 * (classes + background), MASKS: classes + background}
    for name, (module, count) in itertools.product(("weight", "bias"), wanted.items()):
        name = f"{module}.{name}"
        if name in tensors and (classes < 1 or rows[name] != count):
            theirs, shape = origin[name]
            raise UserError(
                f"{file.path}: {theirs} is {shape}, not of {count} outputs as {classes} classes have; "
                "only networks with a box and a mask for each class can be read"
            )
    return classes


def drop_background(tensors, *, coco_ids):
    """Class 0 to the end of the class logits, and out of boxes and masks, in place.

    `coco_ids`: the classes are COCO's ids up to 90, of which 80 are in use.
    """
    for leaf in ("weight", "bias"):
        for module, numbers in ((LOGITS, 1), (DELTAS, 4), (MASKS, 1)):
            if (name := f"{module}.{leaf}") in tensors:
                by_class = tensors[name].reshape(-1, numbers, *tensors[name].shape[1:])
                keep = COCO_IDS if coco_ids else list(range(1, len(by_class)))
                keep = [*keep, 0] if module == LOGITS else keep
                tensors[name] = by_class[keep].reshape(-1, *tensors[name].shape[1:])


def usual_epsilon(tensors):
    """The batch norm epsilon that a file most likely has, by its tensors.

    torchvision sets that of frozen batch norm, which counts no batches, to 0 for its COCO weights; so it is
    for what is trained from them.
    """
    frozen = "backbone.body.bn1.num_batches_tracked" not in tensors
    return 0.0 if frozen and "backbone.body.conv1.weight" in tensors else EPSILON


def move_epsilon(path, tensors, epsilon):
    """Change batch norms of this epsilon to `EPSILON` with the same output, in place.

    The variance takes the difference. Where it would become negative, and lose its digits, the scale does.
    """
    for name in [name for name in tensors if name.endswith(".running_var")]:
        var, scale = tensors[name].astype(np.float64), name.replace("running_var", "weight")
        if scale not in tensors or tensors[scale].shape != var.shape:
            continue  # which is told later
        if not np.all(var + epsilon > 0):
            raise UserError(
                f"{path}: {name} has a variance that epsilon {epsilon:g} cannot be right for; give the "
                f"--batch-norm-epsilon that it was trained with, such as {EPSILON:g}"
            )
        tiny = var + epsilon < EPSILON
        factor = np.where(tiny, np.sqrt((var + EPSILON) / (var + epsilon)), 1)
        tensors[name] = np.where(tiny, var, var + (epsilon - EPSILON)).astype(np.float32)
        tensors[scale] = (tensors[scale] * factor).astype(np.float32)
