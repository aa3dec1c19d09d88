"""Convert the tensors of each source to mmdet's names and forms.

mmdet's form: normalised RGB input, the background class last, boxes and masks without the background, and a
batch norm epsilon of 1e-5.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from masktrack_jax.interop.category_lists import COCO_IDS
from masktrack_jax.interop.files import Tensors, WeightsFile
from masktrack_jax.interop.source_names import BOX, MASK, guess_source, mmdet_name
from masktrack_jax.models.masktrack_rcnn import STD
from masktrack_jax.runtime.errors import UserError

EPSILON = 1e-5  # epsilon of every batch norm here, and of nearly all published networks
LOGITS, DELTAS, MASKS = f"{BOX}.fc_cls", f"{BOX}.fc_reg", f"{MASK}.conv_logits"
STEM = "backbone.conv1.weight"


class Origin(NamedTuple):
    """A tensor as it is in the file."""

    name: str
    shape: tuple[int, ...]


class Translated(NamedTuple):
    """A file in mmdet's names and forms.

    tensors, origin: by mmdet's names. num_classes: without the background; None if no layer depends on it.
    epsilon: epsilon of the file's batch norm.
    """

    tensors: Tensors
    origin: dict[str, Origin]
    num_classes: int | None
    epsilon: float


def translate(file: WeightsFile, source: str, epsilon: float | None = None) -> Translated:
    """Convert the tensors of a file. `epsilon`: epsilon of its batch norm; None: the source's usual one.

    Raises a UserError for a file of another source, or if its class layers do not have the source's form.
    """
    check_source(file, source)
    tensors, origin = {}, {}
    for name, value in file.tensors.items():
        new = mmdet_name(name, source)
        tensors[new], origin[new] = value, Origin(name, value.shape)
    num_classes = count_classes(file, tensors, origin, background_first(file, source))
    if background_first(file, source):
        coco_ids = source == "torchvision" and num_classes == 90
        drop_background(tensors, coco_ids=coco_ids)
        num_classes = 80 if coco_ids else num_classes
    if source == "detectron2" and tensors[STEM].shape[1:] == (3, 7, 7):
        # detectron2's input is BGR minus the mean; ours is RGB minus the mean, divided by STD.
        tensors[STEM] = tensors[STEM][:, ::-1] * np.asarray(STD, np.float32)[:, None, None]
    if epsilon is None:
        epsilon = usual_epsilon(file.tensors)
    elif not any(name.endswith(".running_var") for name in tensors):
        raise UserError(
            f"{file.path}: has no batch norm, so --batch-norm-epsilon has no effect; leave it out"
        )
    if epsilon != EPSILON:
        move_epsilon(file.path, tensors, epsilon)
    return Translated(tensors, origin, num_classes, epsilon)


def check_source(file: WeightsFile, source: str) -> None:
    """Raise a UserError if the file is clearly from another source."""
    likely = guess_source(file.tensors)
    if likely is None:
        some = ", ".join(sorted(file.tensors)[:2])
        raise UserError(f"{file.path}: has no ResNet of a known source, but {some}, …; give another file")
    if likely == "detectron2" and "pixel_std" in file.tensors:
        likely = "detectron2" if np.all(file.tensors["pixel_std"] == 1) else "detectron2-pytorch"
    elif source.startswith(likely):
        likely = source
    if likely != source:
        raise UserError(f"{file.path}: is from {likely}, not from {source}; give --source {likely}")
    if file.caffe:
        raise UserError(f"{file.path}: its config has style='caffe', which is supported only for detectron2")


def background_first(file: WeightsFile, source: str) -> bool:
    """Return whether class 0 is the background: before mmdet 2.0, and in torchvision."""
    return source in ("original", "torchvision") or "bbox_head.fc_cls.weight" in file.tensors


def count_classes(
    file: WeightsFile, tensors: Tensors, origin: dict[str, Origin], background: bool
) -> int | None:
    """Return the number of classes from the class logits, else from the mask logits; None without either.

    `background`: whether boxes and masks have outputs for it too. Raises a UserError if the layers disagree.
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
                f"{file.path}: {theirs} is {shape}, but {classes} classes need {count} outputs; "
                "only networks with a box and a mask for each class can be read"
            )
    return classes


def drop_background(tensors: Tensors, *, coco_ids: bool) -> None:
    """Move class 0 to the end of the class logits and remove it from boxes and masks, in place.

    `coco_ids`: the classes are COCO's ids 1 to 90, and the 80 ids in use are kept.
    """
    for leaf in ("weight", "bias"):
        for module, numbers in ((LOGITS, 1), (DELTAS, 4), (MASKS, 1)):
            if (name := f"{module}.{leaf}") in tensors:
                by_class = tensors[name].reshape(-1, numbers, *tensors[name].shape[1:])
                keep = COCO_IDS if coco_ids else list(range(1, len(by_class)))
                keep = [*keep, 0] if module == LOGITS else keep
                tensors[name] = by_class[keep].reshape(-1, *tensors[name].shape[1:])


def usual_epsilon(tensors: Tensors) -> float:
    """Return the most likely batch norm epsilon of a file, from its tensors.

    torchvision sets the epsilon of frozen batch norm, which has no `num_batches_tracked`, to 0 for its COCO
    weights and for networks trained from them.
    """
    frozen = "backbone.body.bn1.num_batches_tracked" not in tensors
    return 0.0 if frozen and "backbone.body.conv1.weight" in tensors else EPSILON


def move_epsilon(path: Path, tensors: Tensors, epsilon: float) -> None:
    """Convert batch norms from this epsilon to `EPSILON` with the same output, in place.

    The difference is added to the variance. Where the variance would become negative, the scale is changed
    instead.
    """
    for name in [name for name in tensors if name.endswith(".running_var")]:
        var, scale = tensors[name].astype(np.float64), name.replace("running_var", "weight")
        if scale not in tensors or tensors[scale].shape != var.shape:
            continue  # reported later
        if not np.all(var + epsilon > 0):
            raise UserError(
                f"{path}: {name} has a variance that epsilon {epsilon:g} cannot fit; give the "
                f"--batch-norm-epsilon of its training, such as {EPSILON:g}"
            )
        tiny = var + epsilon < EPSILON
        factor = np.where(tiny, np.sqrt((var + EPSILON) / (var + epsilon)), 1)
        tensors[name] = np.where(tiny, var, var + (epsilon - EPSILON)).astype(np.float32)
        tensors[scale] = (tensors[scale] * factor).astype(np.float32)
