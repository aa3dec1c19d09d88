"""From a file's tensors to a checkpoint's variables, and an account of what went where."""

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from masktrack_jax.checkpoints.categories import carry, class_shape, match_categories
from masktrack_jax.checkpoints.metadata import Metadata
from masktrack_jax.config.presets import mmdet1_form, mmtracking_form, original_form, torchvision_form
from masktrack_jax.interop import files, names, sources
from masktrack_jax.interop.architecture import config_of
from masktrack_jax.interop.category_lists import LIKELY, LISTS, read_categories, with_ids
from masktrack_jax.interop.summary import account_of, depends_on_classes, part_of
from masktrack_jax.models.masktrack_rcnn import build_model
from masktrack_jax.runtime.errors import UserError

USUAL = "only Mask R-CNN with ResNet and FPN in its usual form can be read"


def import_weights(path, source, *, categories=None, file_categories=None, epsilon=None, seed=0):
    """`Metadata`, variables and an account (lines) of the file at `path`, of one of `sources.SOURCES`.

    `categories`: what the network is to detect, by default what the file's does; `file_categories`: what that
    is, where the file does not tell (both: see `known.read_categories`). `epsilon`: of the file's batch
    norms, where not the source's own. `seed`: of what is not in the file. Raises a UserError.
    """
    file = files.read(path)
    found = sources.translate(file, source, epsilon)
    config = file.about.config if file.about else source_config(file, found.tensors, source)
    ours = read_categories(categories) if categories else None
    theirs, told = file_labels(file, found.classes, file_categories, ours)
    ours = ours or theirs
    if not ours:
        raise UserError(f"{file.path}: does not tell its categories; give --file-categories or --categories")

    model = build_model(config, len(ours))
    shapes = variable_shapes(file, model)
    table = names.table(shapes)
    shapes = {path: x.shape for path, x in flatten_dict(shapes, sep="/").items()}
    values = read_values(file, found, table, shapes, found.classes or len(ours))
    check_whole(file, table, values)
    if not theirs:  # of classes without names nothing is known
        values = {path: x for path, x in values.items() if not depends_on_classes(path)}
    matches = match_categories([name for _, name in ours], [name for _, name in theirs or ()])

    if len(values) < len(shapes) or None in matches:
        start = flatten_dict(jax.device_get(model.init_variables(jax.random.key(seed))), sep="/")
    else:
        start = {path: np.zeros(shape, np.float32) for path, shape in shapes.items()}
    variables = {p: carry(p, x, values[p], matches) if p in values else x for p, x in start.items()}
    about = Metadata(config, ours, file.about.step if file.about else 0)
    title = f"{file.path}: {source}, ResNet-{config.model.backbone.depth}, {told}"
    lines = [title, *account_of(file, found, table, values, ours, theirs, matches)]
    return about, unflatten_dict(variables, sep="/"), lines


def variable_shapes(file, model):
    """Shapes of the variables of `model`, which may be of a config that the file brings."""
    try:
        return jax.eval_shape(model.init_variables, jax.random.key(0))
    except Exception as error:  # whatever a wrong value leads to
        if not file.about:
            raise
        problem = f"the config in its header makes no network ({type(error).__name__})"
        raise UserError(f"{file.path}: {problem}; get the file anew") from None


def source_config(file, tensors, source):
    """The config of a network of this source."""
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


def file_labels(file, classes, choice, wanted):
    """(id, name) of each class of the file or None, and words that say where they are from.

    `classes`: how many it has; `choice`: of --file-categories; `wanted`: of --categories, or None.
    """
    if classes is None:
        return None, "without classes"
    if choice:
        labels, told = read_categories(choice), f"those of {choice}"
    elif file.about:
        labels, told = file.about.categories, "named in the file"
    elif file.classes:
        labels, told = with_ids(file.classes), "named in the file"
    elif wanted and len(wanted) == classes:
        labels, told = wanted, "taken for those of --categories"
    elif classes in LIKELY:
        labels, told = LISTS[LIKELY[classes]], f"taken for {LIKELY[classes]}'s"
    else:
        labels, told = None, "of unknown names"
    if labels and len(labels) != classes:
        raise UserError(
            f"{file.path}: has {classes} classes, not the {len(labels)} {told}; give --file-categories"
        )
    return labels, f"{classes} classes {told}"


def read_values(file, found, table, shapes, classes):
    """{our name: array} of what the file has of the network; of class-dependent layers for its `classes`.

    Raises a UserError for a tensor of another shape, or with values that are no numbers.
    """
    values = {}
    for path, (name, layout) in table.items():
        if name not in found.tensors:
            continue
        theirs, x = found.origin[name][0], found.tensors[name]
        shape = class_shape(path, shapes[path], classes)
        wanted = names.torch_shape(shape, layout)
        if x.shape != wanted:
            raise UserError(f"{file.path}: {theirs} is {x.shape}, where {wanted} fits the rest; {USUAL}")
        x = np.asarray(x, np.float32)
        if not np.all(np.isfinite(x)):
            raise UserError(f"{file.path}: {theirs} holds values that are not finite; get the file anew")
        values[path] = np.ascontiguousarray(names.from_torch(x, layout, shape))
    return values


def check_whole(file, table, values):
    """A part of the network (backbone, fpn, …) is in the file as a whole, or not at all.

    Its class-dependent layers may be missing; the backbone may not.
    """
    there = {part_of(path) for path in values} | {"backbone"}
    for path, (name, _) in table.items():
        if path not in values and part_of(path) in there and not depends_on_classes(path):
            raise UserError(f"{file.path}: has no {name} (mmdet's name) in its {part_of(path)}; {USUAL}")
