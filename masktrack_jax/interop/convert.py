"""Convert the tensors of a file to the variables of a checkpoint, with a report on each part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from masktrack_jax.checkpoints.categories import carry, class_shape, match_categories
from masktrack_jax.checkpoints.metadata import Metadata
from masktrack_jax.config.presets import mmdet1_form, mmtracking_form, original_form, torchvision_form
from masktrack_jax.interop import files, names, sources
from masktrack_jax.interop.architecture import config_of
from masktrack_jax.interop.category_lists import LIKELY, LISTS, Category, read_categories, with_ids
from masktrack_jax.interop.summary import Labels, depends_on_classes, part_of, report
from masktrack_jax.models.masktrack_rcnn import MaskTrackRCNN, build_model
from masktrack_jax.runtime.errors import UserError

USUAL = "only Mask R-CNN with ResNet and FPN in its usual form can be read"


class Imported(NamedTuple):
    """A network imported from a file. `lines` report which parts were loaded, which were not, and why."""

    metadata: Metadata
    variables: dict[str, Any]
    lines: list[str]


def import_weights(
    path: str | Path,
    source: str,
    *,
    categories: str | None = None,
    file_categories: str | None = None,
    epsilon: float | None = None,
    seed: int = 0,
) -> Imported:
    """Import the weights in a file.

    Args:
      path: a .safetensors, .pth, .pt or .pkl file.
      source: the implementation that wrote it, one of `source_names.SOURCES`.
      categories: the categories to detect; default: the file's. See `category_lists.read_categories`.
      file_categories: the categories of the file, if it does not name them, given in the same way.
      epsilon: epsilon of the file's batch norms; default: the source's usual one.
      seed: seed for the initialisation of parameters that the file lacks.
    Raises:
      UserError: the file cannot be read, is of another source, or does not fit the network.
    """
    file = files.read(path)
    translated = sources.translate(file, source, epsilon)
    config = file.metadata.config if file.metadata else source_config(file, translated.tensors, source)
    chosen = read_categories(categories) if categories else None
    theirs, told = file_labels(file, translated.num_classes, file_categories, chosen)
    ours = chosen or theirs
    if not ours:
        raise UserError(f"{file.path}: does not name its categories; give --file-categories or --categories")

    model = build_model(config, len(ours))
    expected = variable_shapes(file, model)
    table = names.table(expected)
    shapes = {path: x.shape for path, x in flatten_dict(expected, sep="/").items()}
    values = read_values(file, translated, table, shapes, translated.num_classes or len(ours))
    check_whole(file, table, values)
    if not theirs:  # classes without names cannot be matched
        values = {path: x for path, x in values.items() if not depends_on_classes(path)}
    places = match_categories([name for _, name in ours], [name for _, name in theirs or ()])

    if len(values) < len(shapes) or None in places:
        start = flatten_dict(jax.device_get(model.init_variables(jax.random.key(seed))), sep="/")
    else:
        start = {path: np.zeros(shape, np.float32) for path, shape in shapes.items()}
    variables = {p: carry(p, x, values[p], places) if p in values else x for p, x in start.items()}
    title = f"{file.path}: {source}, ResNet-{config.model.backbone.depth}, {told}"
    return Imported(
        metadata=Metadata(config, ours, file.metadata.step if file.metadata else 0),
        variables=unflatten_dict(variables, sep="/"),
        lines=[title, *report(file, translated, table, values, Labels(ours, theirs, places))],
    )


def variable_shapes(file: files.WeightsFile, model: MaskTrackRCNN) -> dict[str, Any]:
    """Return the shapes of the variables of `model`, whose config is of the file's header or tensors."""
    try:
        return jax.eval_shape(model.init_variables, jax.random.key(0))
    except Exception as error:  # a wrong value can raise anything
        source = "the config in its header" if file.metadata else "the sizes of its tensors"
        problem = f"{source} describe{'s' * bool(file.metadata)} no network ({type(error).__name__})"
        raise UserError(f"{file.path}: {problem}; get the file again") from None


def source_config(file: files.WeightsFile, tensors: files.Tensors, source: str) -> ConfigDict:
    """Return the config of a network of this source."""
    if "backbone.gn1.weight" in tensors:
        raise UserError(f"{file.path}: its group norm has other groups than ours; {USUAL}")
    config = config_of(file.path, tensors)
    if source == "detectron2":
        config.model.backbone.stride_in_1x1 = True
    forms = {"mmtracking": mmtracking_form, "original": original_form}
    if source == "mmdet" and sources.background_first(file, source):
        forms["mmdet"] = mmdet1_form
    if source == "torchvision" and "rpn_head.rpn_conv.weight" in tensors:
        forms["torchvision"] = torchvision_form
    return forms[source](config) if source in forms else config


def file_labels(
    file: files.WeightsFile, num_classes: int | None, choice: str | None, wanted: list[Category] | None
) -> tuple[list[Category] | None, str]:
    """Return the categories of the file, or None if unknown, and a text that says where they come from.

    `choice` is the value of --file-categories; `wanted` are the categories of --categories.
    """
    labels: list[Category] | None
    if num_classes is None:
        if choice:
            raise UserError(f"{file.path}: has no classes, so --file-categories has no effect; leave it out")
        return None, "without classes"
    if choice:
        labels, told = read_categories(choice), f"those of {choice}"
    elif file.metadata:
        labels, told = file.metadata.categories, "named in the file"
    elif file.class_names:
        labels, told = with_ids(file.class_names), "named in the file"
    elif wanted and len(wanted) == num_classes:
        labels, told = wanted, "assumed to be those of --categories"
    elif num_classes in LIKELY:
        labels, told = LISTS[LIKELY[num_classes]], f"assumed to be {LIKELY[num_classes]}'s"
    else:
        labels, told = None, "without names"
    if labels and len(labels) != num_classes:
        raise UserError(
            f"{file.path}: has {num_classes} classes, not the {len(labels)} {told}; give --file-categories"
        )
    return labels, f"{num_classes} classes {told}"


def read_values(
    file: files.WeightsFile,
    translated: sources.Translated,
    table: Mapping[str, names.Entry],
    shapes: Mapping[str, tuple[int, ...]],
    num_classes: int,
) -> dict[str, np.ndarray]:
    """Return {our name: array} of the parameters in the file, whose class layers have `num_classes`.

    Raises a UserError for a tensor of another shape, of integers, or with values that are not finite.
    """
    values = {}
    for path, (name, layout) in table.items():
        if name not in translated.tensors:
            continue
        theirs, x = translated.origin[name].name, translated.tensors[name]
        shape = class_shape(path, shapes[path], num_classes)
        wanted = names.torch_shape(shape, layout)
        if x.shape != wanted:
            raise UserError(f"{file.path}: {theirs} is {x.shape}, but the rest needs {wanted}; {USUAL}")
        if x.dtype.kind in "biuc":
            problem = f"{theirs} has values of type {x.dtype}; give the weights in floating point"
            raise UserError(f"{file.path}: {problem}")
        x = np.asarray(x, np.float32)
        if not np.all(np.isfinite(x)):
            raise UserError(f"{file.path}: {theirs} has values that are not finite; get the file again")
        values[path] = np.ascontiguousarray(names.from_torch(x, layout, shape))
    return values


def check_whole(
    file: files.WeightsFile, table: Mapping[str, names.Entry], values: Mapping[str, np.ndarray]
) -> None:
    """Raise a UserError if a part of the network (backbone, fpn, …) is neither complete nor absent.

    Class-dependent layers may be missing. The backbone must be present.
    """
    there = {part_of(path) for path in values} | {"backbone"}
    for path, (name, _) in table.items():
        if path not in values and part_of(path) in there and not depends_on_classes(path):
            raise UserError(f"{file.path}: has no {name} (mmdet's name) in its {part_of(path)}; {USUAL}")
