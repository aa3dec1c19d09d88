"""Imports that need categories, come from other sources, or do not fit the network.

The oracle is the state dict that was written: its rows must be at the positions of their categories.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from masktrack_jax.interop.category_lists import COCO_IDS, LISTS
from masktrack_jax.interop.convert import import_weights
from masktrack_jax.runtime.errors import UserError
from tests.helpers.interop import INITIAL, one_line, quick_initialisation
from tests.helpers.torch_networks import NAMES, make_state

Change = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]  # of a state dict
Load = Any  # `load(state, source, **options) -> Imported`, and `load.path`
MMDET, TORCHVISION = NAMES["mmdet"], NAMES["torchvision"]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write a state dict and import it."""
    quick_initialisation(monkeypatch)
    path = tmp_path / "weights.safetensors"

    def load(state: dict[str, np.ndarray], source: str = "mmdet", **options: Any) -> Any:
        save_file({name: np.ascontiguousarray(x) for name, x in state.items()}, path)
        return import_weights(path, source, **options)

    load.path = path
    return load


def seven(classes: int = 7) -> dict[str, np.ndarray]:
    """A network of mmdet with seven classes without names."""
    return make_state(MMDET, 18, (classes + 1, 4 * classes, classes))


def line_of(lines: list[str], start: str) -> str:
    (line,) = [line for line in lines if line.startswith(start)]
    return line


def test_class_layers_by_name(load: Load) -> None:
    """COCO's rows at their categories' places in YouTube-VIS; the others stay as they were."""
    state = make_state(TORCHVISION, 18, (91, 364, 91))
    metadata, variables, lines = load(state, "torchvision", categories="youtubevis2019")
    assert metadata.categories == LISTS["youtubevis2019"]
    box, mask = variables["params"]["box_head"], variables["params"]["mask_head"]
    logits, deltas = (state[f"{name}.weight"] for name in TORCHVISION.box)
    masks = state[f"{TORCHVISION.mask_out[1]}.bias"]
    # person, sedan, bear, motorbike, tennis racket: our label, COCO's id
    for label, coco in ((0, 1), (5, 3), (19, 23), (20, 4), (39, 43)):
        np.testing.assert_array_equal(box["logits"]["kernel"][:, label], logits[coco])
        for i in range(4):
            ours = box["deltas"]["kernel"][:, 4 * label + i]
            np.testing.assert_array_equal(ours, deltas[4 * coco + i])
        assert mask["logits_bias"][label] == masks[coco]
    np.testing.assert_array_equal(box["logits"]["kernel"][:, 40], logits[0])
    for label in (1, 35):  # giant panda, mouse
        assert np.all(box["logits"]["kernel"][:, label] == INITIAL)
        assert np.all(box["deltas"]["bias"][4 * label : 4 * label + 4] == INITIAL)
        assert np.all(mask["logits_kernel"][:, label] == INITIAL)
    assert line_of(lines, "class layers, by name: 19 of 40 categories: person, skateboard, sedan, dog")
    assert "mouse" in line_of(lines, "left at initialisation, not among the file's categories: giant_panda")


def test_categories_of_files(load: Load, tmp_path: Path) -> None:
    """Annotations and lists of names, for the file's categories and for ours."""
    (tmp_path / "names.json").write_text(json.dumps(["a", "b", "c", "d", "e", "f", "g"]))
    annotations = {"categories": [{"id": 9, "name": "G"}, {"id": 4, "name": "x"}]}
    (tmp_path / "annotations.json").write_text(json.dumps(annotations))
    options = {"file_categories": str(tmp_path / "names.json")}
    state = seven()
    metadata, variables, _ = load(state, **options)
    assert metadata.categories == list(enumerate("abcdefg", start=1))
    biases = state[f"{MMDET.box[0]}.bias"]
    np.testing.assert_array_equal(variables["params"]["box_head"]["logits"]["bias"], biases)
    metadata, variables, _ = load(state, categories=str(tmp_path / "annotations.json"), **options)
    assert metadata.categories == [(9, "G"), (4, "x")]
    wanted = [biases[6], INITIAL, biases[7]]
    np.testing.assert_array_equal(variables["params"]["box_head"]["logits"]["bias"], np.float32(wanted))


def test_classes_without_names(load: Load, tmp_path: Path) -> None:
    """Seven unknown classes are asked for, or left out, or taken for as many --categories."""
    with pytest.raises(UserError) as error:
        load(seven())
    one_line(error, load.path, "--file-categories")
    state = seven()
    _, variables, lines = load(state, categories="ovis")
    assert np.all(variables["params"]["box_head"]["logits"]["kernel"] == INITIAL)
    assert line_of(lines, "left at initialisation, as the file's categories are unknown")
    (tmp_path / "names.json").write_text(json.dumps(list("abcdefg")))
    _, variables, lines = load(state, categories=str(tmp_path / "names.json"))
    biases = state[f"{MMDET.box[0]}.bias"]
    np.testing.assert_array_equal(variables["params"]["box_head"]["logits"]["bias"], biases)
    assert "assumed to be those of --categories" in lines[0]


@pytest.mark.parametrize("content", [None, "{", "{}", "[]", "[1]", '{"categories": [{"id": 1}]}'])
def test_bad_category_files(load: Load, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "categories.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError) as error:
        load(seven(), categories=str(path))
    one_line(error, path)


def test_another_number_of_categories(load: Load) -> None:
    with pytest.raises(UserError) as error:
        load(seven(), file_categories="ovis")
    one_line(error, load.path, "7 classes", "25")


@pytest.mark.parametrize("there", ["mmtracking", "original", "mmdet", "torchvision", "detectron2"])
@pytest.mark.parametrize("source", ["mmtracking", "original", "mmdet", "torchvision", "detectron2"])
def test_another_source_is_named(load: Load, there: str, source: str) -> None:
    if there == source:
        return
    with pytest.raises(UserError) as error:
        load(make_state(NAMES[there], 18, (81, 320, 80)), source)
    one_line(error, load.path, f"--source {there}")


def test_no_network_at_all(load: Load) -> None:
    with pytest.raises(UserError) as error:
        load({"layer.weight": np.zeros((3, 4), "f4")})
    one_line(error, load.path, "layer.weight")


@pytest.mark.parametrize(
    "std, source, other", [(1, "detectron2-pytorch", "detectron2"), (58, "detectron2", "detectron2-pytorch")]
)
def test_detectron2_styles_are_told_apart_where_possible(
    load: Load, std: float, source: str, other: str
) -> None:
    state = make_state(NAMES["detectron2"], 18, (81, 320, 80))
    state["pixel_std"] = np.full((3, 1, 1), std, "f4")
    with pytest.raises(UserError) as error:
        load(state, source)
    one_line(error, load.path, f"--source {other}")
    metadata = load(state, other).metadata
    assert metadata.config.model.backbone.stride_in_1x1 == (other == "detectron2")


def named(name: str, change: Change) -> Change:
    change.__name__ = name
    return change


def zeros(name: str, *shape: int) -> Change:
    return named(name, lambda state: state | {name: np.zeros(shape, "f4")})


def without(name: str) -> Change:
    return named(name, lambda state: {key: x for key, x in state.items() if key != name})


@pytest.mark.parametrize(
    "change, words",
    [
        (zeros("neck.fpn_convs.1.conv.weight", 16, 16, 1, 1), ("is (16, 16, 1, 1)", "(16, 16, 3, 3)")),
        (zeros("roi_head.bbox_head.shared_fcs.0.weight", 24, 16), ("is (24, 16)", "(24, 784)")),
        (zeros("rpn_head.rpn_cls.weight", 9, 16, 1, 1), ("is (9, 16, 1, 1)", "(3, 16, 1, 1)")),
        (zeros("roi_head.bbox_head.fc_reg.weight", 4, 24), ("is (4, 24)", "320 outputs", "80 classes")),
        (zeros("roi_head.bbox_head.fc_cls.bias", 80), ("is (80,)", "81 outputs")),
        (zeros("roi_head.bbox_head.fc_cls.weight", 1), ("is (1,)",)),
        (zeros("roi_head.mask_head.conv_logits.bias", 81), ("is (81,)", "80 outputs")),
        (zeros("backbone.conv1.weight", 8), ("is (8,)", "(8, 3, 7, 7)")),
        (zeros("backbone.layer3.2.conv1.weight", 1), ("(2, 2, 3, 2) basic blocks", "18, 34, 50, 101")),
        (zeros("backbone.gn1.weight", 8), ("group norm",)),
        (without("backbone.bn1.running_var"), ("in its backbone",)),
        (without("neck.lateral_convs.2.conv.bias"), ("in its fpn",)),
    ],
    ids=lambda change: getattr(change, "__name__", ""),
)
def test_what_does_not_fit_is_named(load: Load, change: Change, words: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as error:
        load(change(make_state(MMDET, 18, (81, 320, 80))))
    one_line(error, load.path, *words)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers(load: Load, value: float) -> None:
    state = make_state(MMDET, 18, (81, 320, 80))
    state["neck.fpn_convs.3.conv.bias"][2] = value
    with pytest.raises(UserError) as error:
        load(state)
    one_line(error, load.path, "neck.fpn_convs.3.conv.bias", "not finite")


def test_a_detector_without_masks(load: Load) -> None:
    """Faster R-CNN: the class layers of boxes are taken, the mask head stays at its initialisation."""
    masks = (MMDET.mask(0), MMDET.mask(1), *MMDET.mask_out)
    state = {n: x for n, x in make_state(MMDET, 18, (81, 320, 80)).items() if not n.startswith(masks)}
    _, variables, lines = load(state)
    assert line_of(lines, "left") == "left at initialisation, not in the file: mask_head, track_head"
    assert np.all(variables["params"]["mask_head"]["logits_kernel"] == INITIAL)
    biases = state[f"{MMDET.box[0]}.bias"]
    np.testing.assert_array_equal(variables["params"]["box_head"]["logits"]["bias"], biases)


def test_without_the_class_layers(load: Load) -> None:
    state = make_state(MMDET, 18, (81, 320, 80))
    state = {n: x for n, x in state.items() if not n.startswith((*MMDET.box, MMDET.mask_out[1]))}
    _, variables, lines = load(state, categories="ovis")
    assert variables["params"]["box_head"]["logits"]["bias"].shape == (26,)
    assert "box_head/logits/kernel" in line_of(lines, "left at initialisation, not in the file: track_head")


def folded(variables: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift of the stem's batch norm as the network computes them."""
    params, stats = (variables[key]["backbone"]["stem"]["norm"] for key in ("params", "batch_stats"))
    factor = params["scale"] / np.sqrt(stats["var"] + np.float32(1e-5))
    return factor, params["bias"] - stats["mean"] * factor


@pytest.mark.parametrize("epsilon", [0.0, 1e-5, 1e-3])
def test_batch_norm_epsilon(load: Load, epsilon: float) -> None:
    """Down to the smallest variances, which dead channels have."""
    state = make_state(TORCHVISION, 18, (91, 364, 91))
    var = np.float32([1e-12, 1e-9, 1e-6, 9e-6, 1.1e-5, 1e-3, 1.0, 50.0])
    state["backbone.body.bn1.running_var"] = var
    state["backbone.body.bn1.running_mean"] = np.linspace(-1, 1, 8, dtype="f4") * np.sqrt(var)
    _, variables, _ = load(state, "torchvision", epsilon=epsilon)
    weight, bias, mean = (
        np.float64(state[f"backbone.body.bn1.{n}"]) for n in ("weight", "bias", "running_mean")
    )
    factor = weight / np.sqrt(np.float64(var) + epsilon)
    for ours, wanted in zip(folded(variables), (factor, bias - mean * factor)):
        np.testing.assert_allclose(ours, wanted, rtol=3e-6, atol=3e-6)
    assert np.all(variables["batch_stats"]["backbone"]["stem"]["norm"]["var"] >= 0)


def test_usual_batch_norm_epsilon(load: Load) -> None:
    """0 for torchvision's frozen batch norms only; batch norms that count batches are not frozen."""
    state = make_state(TORCHVISION, 18, (91, 364, 91))
    lines = load(state, "torchvision").lines
    assert line_of(lines, "batch norm: the file's epsilon of 0 ")
    name = "backbone.body.bn1.running_var"
    state["backbone.body.bn1.num_batches_tracked"] = np.zeros((), np.int64)
    _, variables, lines = load(state, "torchvision")
    assert not any(line.startswith("batch norm") for line in lines)
    ours = variables["batch_stats"]["backbone"]["stem"]["norm"]["var"]
    np.testing.assert_array_equal(ours, state[name])


def test_a_variance_of_zero_asks_for_its_epsilon(load: Load) -> None:
    state = make_state(TORCHVISION, 18, (91, 364, 91))
    state["backbone.body.bn1.running_var"][3] = 0
    with pytest.raises(UserError) as error:
        load(state, "torchvision")
    one_line(error, load.path, "--batch-norm-epsilon")


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int64])
def test_integers_are_no_weights(load: Load, kind: type) -> None:
    """Of quantised networks: their scale is elsewhere."""
    state = make_state(MMDET, 18, (81, 320, 80))
    state["neck.fpn_convs.3.conv.bias"] = state["neck.fpn_convs.3.conv.bias"].astype(kind)
    with pytest.raises(UserError) as error:
        load(state)
    one_line(
        error, load.path, "neck.fpn_convs.3.conv.bias has values of type", "give the weights in floating"
    )


def test_options_without_effect(load: Load) -> None:
    classifier = {n: x for n, x in make_state(MMDET, 18, (81, 320, 80)).items() if n.startswith("backbone")}
    with pytest.raises(UserError) as error:
        load(classifier, categories="coco", file_categories="coco")
    one_line(error, load.path, "has no classes, so --file-categories has no effect")
    with pytest.raises(UserError) as error:
        load({n: x for n, x in classifier.items() if "running" not in n}, epsilon=1e-3)
    one_line(error, load.path, "has no batch norm, so --batch-norm-epsilon has no effect")


def test_torchvision_trained_for_other_classes(load: Load, tmp_path: Path) -> None:
    """Without COCO's gaps in the ids only the background is removed."""
    state = make_state(TORCHVISION, 18, (4, 16, 4))
    (tmp_path / "names.json").write_text('["a", "b", "c"]')
    _, variables, _ = load(state, "torchvision", file_categories=str(tmp_path / "names.json"))
    biases = state["roi_heads.box_predictor.cls_score.bias"]
    np.testing.assert_array_equal(variables["params"]["box_head"]["logits"]["bias"], biases[[1, 2, 3, 0]])
    assert len(COCO_IDS) == 80 and COCO_IDS[-1] == 90
