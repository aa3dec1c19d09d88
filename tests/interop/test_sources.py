"""An imported network computes what its source computes: every source, every layer, against NumPy."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from masktrack_jax.config.base import base_config
from masktrack_jax.config.presets import mmtracking_form, original_form
from masktrack_jax.interop.category_lists import COCO_IDS, LISTS
from masktrack_jax.interop.convert import Imported, import_weights
from masktrack_jax.models.masktrack_rcnn import MaskTrackRCNN, build_model, normalise
from tests.helpers.interop import quick_initialisation
from tests.helpers.torch_networks import (
    CHANNELS,
    EMBEDDING,
    FEATURES,
    MASK_CONVS,
    NAMES,
    WIDTH,
    Network,
    make_state,
)

LAST_80, FIRST_81, LAST_40, FIRST_41 = (81, 320, 80), (81, 324, 81), (41, 160, 40), (41, 164, 41)
COCO_91 = (91, 364, 91)
MEAN = np.array([123.675, 116.28, 103.53])
STD = np.array([58.395, 57.12, 57.375])
# --source, names, depth, outputs of the class layers, and what else is special.
CASES = {
    "mmtracking": ("mmtracking", "mmtracking", 18, LAST_40, {}),
    "original": ("original", "original", 18, FIRST_41, {}),
    "mmdet": ("mmdet", "mmdet", 18, LAST_80, {}),
    "mmdet-1": ("mmdet", "mmdet 1", 18, FIRST_81, {}),
    "torchvision": ("torchvision", "torchvision", 50, COCO_91, {"epsilon": 0.0}),
    "torchvision-0.5": ("torchvision", "torchvision 0.5", 18, COCO_91, {"epsilon": 0.0}),
    "detectron2": ("detectron2", "detectron2", 50, LAST_80, {"stride_in_1x1": True}),
    "detectron2-pytorch": ("detectron2-pytorch", "detectron2", 18, LAST_80, {}),
}


def classes_of(rows: tuple[int, int, int]) -> list[int]:
    """The source's outputs that are ours, in our order (without the background)."""
    if rows == COCO_91:
        return COCO_IDS
    first = rows in (FIRST_41, FIRST_81)
    return list(range(first, rows[0] - 1 + first))


class Case(NamedTuple):
    name: str
    network: Network  # the source's
    model: MaskTrackRCNN  # ours
    imported: Imported


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param != "mmdet":  # one is enough: it is compiled for each
            quick_initialisation(patch)
        yield import_case(request.param, tmp_path_factory)


def import_case(name: str, tmp_path_factory: pytest.TempPathFactory) -> Case:
    source, names, depth, rows, special = CASES[name]
    caffe = source == "detectron2"
    state = make_state(NAMES[names], depth, rows, stem_gain=1 / 57 if caffe else 1.0)
    network = Network(state, NAMES[names], depth, **special)
    path = tmp_path_factory.mktemp("source") / "weights.safetensors"
    state["fc.weight"] = np.zeros((10, 4), "f4")  # which no detector has
    save_file(state, path)
    imported = import_weights(path, source, seed=3)
    metadata = imported.metadata
    return Case(name, network, build_model(metadata.config, len(metadata.categories)), imported)


def apply(model: MaskTrackRCNN, variables: dict[str, Any], *arrays: Any, method: Any) -> Any:
    return jax.jit(lambda v, *a: model.apply(v, *a, method=method))(variables, *arrays)


def assert_close(ours: np.ndarray, wanted: np.ndarray) -> None:
    assert ours.shape == wanted.shape
    np.testing.assert_allclose(ours, wanted, atol=2e-5 * np.abs(wanted).max())


def nchw(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.asarray(x, np.float64), -1, 1)


def nhwc(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1)


def test_features(case: Case) -> None:
    name = case.name
    images = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3), np.uint8)
    sizes = np.array([[64, 64]])
    x = nchw(images - MEAN) if name == "detectron2" else nchw((images - MEAN) / STD)
    x = x[:, ::-1] if name == "detectron2" else x
    ours = apply(case.model, case.imported.variables, images, sizes, method="features")
    for ours_level, level in zip(ours, case.network.pyramid(x), strict=True):
        assert level.std() > 0.05  # else the comparison would show nothing
        assert_close(ours_level, nhwc(level))


def test_region_proposals(case: Case) -> None:
    features = np.random.default_rng(2).normal(size=(1, 4, 6, CHANNELS)).astype("f4")
    logits, deltas = apply(
        case.model, case.imported.variables, (features,), method=lambda m, x: m.rpn_head(x)
    )
    wanted_logits, wanted_deltas = case.network.rpn(nchw(features))
    assert_close(logits, nhwc(wanted_logits).reshape(1, -1))
    assert_close(deltas, nhwc(wanted_deltas).reshape(deltas.shape))


def test_boxes(case: Case) -> None:
    keep = classes_of(CASES[case.name][3])
    background = 0 if keep[0] == 1 else len(keep)
    roi = np.random.default_rng(3).normal(size=(5, 7, 7, CHANNELS)).astype("f4")
    logits, deltas = apply(case.model, case.imported.variables, roi, method=lambda m, x: m.box_head(x))
    wanted_logits, wanted_deltas = case.network.boxes(nchw(roi))
    assert_close(logits, wanted_logits[:, [*keep, background]])
    assert_close(deltas, wanted_deltas.reshape(5, -1, 4)[:, keep])


def test_masks(case: Case) -> None:
    keep = classes_of(CASES[case.name][3])
    roi = np.random.default_rng(4).normal(size=(4, 14, 14, CHANNELS)).astype("f4")
    labels = np.array([0, 1, len(keep) // 2, len(keep) - 1])
    ours = apply(
        case.model, case.imported.variables, roi, labels, method=lambda m, x, labels: m.mask_head(x, labels)
    )
    assert_close(ours, case.network.masks(nchw(roi))[np.arange(4), np.array(keep)[labels]])


def test_embeddings(case: Case) -> None:
    name, network, model, imported = case
    variables = imported.variables
    if not network.names.track:
        left = variables["params"]["track_head"]
        wanted = model.init_variables(jax.random.key(3))["params"]["track_head"]
        jax.tree.map(np.testing.assert_array_equal, left, wanted)
        return
    roi = np.random.default_rng(5).normal(size=(6, 7, 7, CHANNELS)).astype("f4")
    ours = apply(case.model, case.imported.variables, roi, method=lambda m, x: m.track_head(x))
    wanted = network.embeddings(nchw(roi), relu_last=name == "mmtracking")
    assert (wanted < 0).any() == (name == "original")
    assert_close(ours, wanted)


def test_config_and_categories(case: Case) -> None:
    name, network, _, (metadata, _, _) = case
    config = base_config()
    config.model.backbone.update({"depth": network.depth, "width": WIDTH})
    config.model.backbone.stride_in_1x1 = name == "detectron2"
    config.model.fpn.channels = config.model.rpn_head.channels = CHANNELS
    config.model.box_head.features = FEATURES
    config.model.mask_head.update({"convs": MASK_CONVS, "channels": CHANNELS})
    if name in ("mmtracking", "original"):
        config.model.track_head.features = EMBEDDING
        config = {"mmtracking": mmtracking_form, "original": original_form}[name](config)
    elif name == "mmdet-1":
        config.model.update({"pixel_boxes": True})
        config.model.anchors.update({"centre": 0.5, "rounded": True})
        config.model.roi_align.update({"aligned": False, "sampling": 2})
    elif name.startswith("torchvision"):
        config.model.anchors.rounded = True
        config.model.roi_align.update({"aligned": False, "sampling": 2, "min_size": 1.0})
    assert metadata.config.to_json() == config.to_json()
    known = {81: "coco", 91: "coco", 41: "youtubevis2019"}
    assert metadata.categories == LISTS[known[CASES[name][3][0]]]


def test_the_report(case: Case) -> None:
    name, network, _, (_, variables, lines) = case
    whole = name in ("mmtracking", "original")
    left = ["left at initialisation, not in the file: track_head"]
    assert [line for line in lines if line.startswith("left")] == ([] if whole else left)
    assert lines[-1] == "unused in the file: fc.weight"
    assert any("epsilon" in line for line in lines) == (network.epsilon == 0)
    loaded = {}
    for part in variables["params"].keys() - ({} if whole else {"track_head"}):
        loaded[part] = len(jax.tree.leaves([tree.get(part, {}) for tree in variables.values()]))
    (line,) = [line for line in lines if line.startswith("loaded: ")]
    assert sorted(line.removeprefix("loaded: ").split(", ")) == sorted(
        f"{part} ({count} tensors)" for part, count in loaded.items()
    )


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_a_classifier_is_a_backbone(depth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network for any categories starts from it; `fc` is not used."""
    quick_initialisation(monkeypatch)
    state = make_state(NAMES["classifier"], depth) | {"fc.weight": np.zeros((10, 4), "f4")}
    state["bn1.num_batches_tracked"] = np.zeros((), np.int64)
    save_file(state, tmp_path / "resnet.safetensors")
    metadata, variables, lines = import_weights(
        tmp_path / "resnet.safetensors", "torchvision", categories="ovis"
    )
    assert (metadata.categories, metadata.config.model.backbone.depth) == (LISTS["ovis"], depth)
    assert lines[2:] == [
        "left at initialisation, not in the file: fpn, rpn_head, box_head, mask_head, track_head",
        "unused in the file: fc.weight",
    ]
    if depth == 18:
        model = build_model(metadata.config, 25)
        images = np.random.default_rng(6).integers(0, 256, (1, 64, 64, 3), np.uint8)
        sizes = np.array([[64, 64]])
        got = apply(model, variables, images, sizes, method=lambda m, x, s: m.backbone(normalise(x, s)))
        wanted = Network(state, NAMES["classifier"], depth).backbone(nchw((images - MEAN) / STD))
        for ours, level in zip(got, wanted, strict=True):
            assert_close(ours, nhwc(level))
