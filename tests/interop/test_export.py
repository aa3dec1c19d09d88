"""An export has mmtracking's names and shapes, as recorded, and its import returns every bit."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict
from safetensors.numpy import load_file, save_file

from masktrack_jax.checkpoints import store
from masktrack_jax.checkpoints.metadata import Metadata, read_metadata
from masktrack_jax.config.base import base_config
from masktrack_jax.interop import names
from masktrack_jax.interop.__main__ import main as import_main
from masktrack_jax.interop.export import main as export_main
from masktrack_jax.interop.export_weights import export_weights, mmtracking_name
from masktrack_jax.models.masktrack_rcnn import MaskTrackRCNN, build_model
from masktrack_jax.runtime.errors import UserError
from tests.helpers.configs import ROOT, load_config
from tests.helpers.interop import one_line
from tests.helpers.networks import randomised

CATEGORIES = [(7, "circle"), (9, "square"), (12, "star")]


def test_names_and_shapes_are_mmtrackings() -> None:
    """Exactly those recorded from its R50-FPN for YouTube-VIS."""
    recorded = json.loads((ROOT / "tests" / "goldens" / "names_shapes.json").read_text())["entries"]
    wanted = {name: tuple(shape) for name, shape, _ in recorded}
    shapes = jax.eval_shape(build_model(base_config(), 40).init_variables, jax.random.key(0))
    flat, got = flatten_dict(shapes, sep="/"), {}
    for path, (name, layout) in names.table(shapes).items():
        name = mmtracking_name(name)
        assert name not in got
        got[name] = names.torch_shape(flat[path].shape, layout)
    assert got == {name: shape for name, shape in wanted.items() if "num_batches" not in name}
    assert {n for n in wanted if "num_batches" in n} == {
        n.replace("running_var", "num_batches_tracked") for n in got if n.endswith("running_var")
    }


@pytest.mark.parametrize(
    "layout, shape",
    [
        ("conv", (3, 3, 5, 7)),
        ("conv", (5, 7)),
        ("linear", (5, 7)),
        ("roi", (49 * 5, 7)),
        ("transposed", (2, 2, 5, 7)),
        (None, (4,)),
    ],
)
def test_layouts_go_both_ways(layout: str | None, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=shape)
    there = names.to_torch(x, layout)
    assert there.shape == names.torch_shape(shape, layout)
    np.testing.assert_array_equal(names.from_torch(there, layout, shape), x)


def config_with(changes: dict[str, Any]) -> ConfigDict:
    config = load_config("tiny")
    config.update_from_flattened_dict(changes)
    return config


GROUP = {"model.backbone.norm": "group", "model.fpn.norm": "group", "model.mask_head.norm": "group"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model.backbone.depth": 50, "model.mask_head.convs": 0},
        GROUP | {"model.box_head.convs": 2, "model.box_head.norm": "group"},
        {"model.neck": "none", "model.anchors.strides": (32,), "model.track_head.kind": "conv"},
    ],
    ids=["tiny", "bottleneck", "group norm", "single level"],
)
def test_export_and_import_give_the_same(
    changes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every bit of the parameters, the config, the categories and the step."""
    config = config_with(changes)
    shapes = jax.eval_shape(build_model(config, 3).init_variables, jax.random.key(0))
    variables = randomised(shapes)
    store.write_variables(tmp_path / "first", variables, Metadata(config, CATEGORIES, 11))
    path = tmp_path / "new" / "weights.safetensors"
    export_main(["--checkpoint", str(tmp_path / "first"), "--output", str(path)])
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    source = ["--input", str(path), "--source", "mmtracking"]
    import_main([*source, "--output", str(tmp_path / "second")])
    about = read_metadata(tmp_path / "second")
    assert (about.categories, about.step) == (CATEGORIES, 11)
    assert json.loads(about.config.to_json()) == json.loads(config.to_json())
    back = store.load_variables(tmp_path / "second", build_model(about.config, 3))
    assert jax.tree.structure(back) == jax.tree.structure(variables)
    for ours, wanted in zip(jax.tree.leaves(back), jax.tree.leaves(variables)):
        assert np.asarray(ours).tobytes() == wanted.tobytes()
    told = capsys.readouterr().out
    assert "left" not in told and "unused" not in told


@pytest.fixture(scope="module")
def exported(
    tiny_model: tuple[MaskTrackRCNN, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The path of an exported network, beside its checkpoint, and its variables."""
    folder = tmp_path_factory.mktemp("exported")
    metadata = Metadata(load_config("tiny"), CATEGORIES, 11)
    store.write_variables(folder / "checkpoint", tiny_model[1], metadata)
    export_weights(folder / "checkpoint", folder / "weights.safetensors")
    return folder / "weights.safetensors", tiny_model[1]


def test_tensors_lie_as_pytorch_has_them(exported: tuple[Path, dict[str, Any]]) -> None:
    path, variables = exported
    tensors, params = load_file(path), jax.device_get(variables["params"])
    head = "detector.roi_head."
    fc = tensors[f"{head}bbox_head.shared_fcs.0.weight"].reshape(32, 16, 7, 7)
    np.testing.assert_array_equal(
        fc[5, 3, 2, 6], params["box_head"]["fc1"]["kernel"][(2 * 7 + 6) * 16 + 3, 5]
    )
    kernel = tensors[f"{head}mask_head.upsample.weight"]
    np.testing.assert_array_equal(kernel[4, 9, 1, 0], params["mask_head"]["deconv"]["kernel"][1, 0, 4, 9])
    lateral = tensors["detector.neck.lateral_convs.2.conv.weight"]
    ours = params["fpn"]["lateral4"]["conv"]["conv"]["kernel"]
    np.testing.assert_array_equal(lateral[7, 11, 0, 0], ours[11, 7])
    stem = tensors["detector.backbone.conv1.weight"]
    np.testing.assert_array_equal(stem[3, 2, 5, 1], params["backbone"]["stem"]["kernel"][5, 1, 2, 3])
    count = tensors["detector.backbone.layer2.0.downsample.1.num_batches_tracked"]
    assert (count.dtype, count.shape) == (np.int64, ())


def describe(**changes: Any) -> str:
    """A file's header, with these values of the config's backbone."""
    about = Metadata(load_config("tiny"), CATEGORIES, 11).to_json()
    about["config"]["model"]["backbone"].update(changes)
    return json.dumps(about)


@pytest.mark.parametrize(
    "header",
    ["{", "[]", '{"config": {}}', '{"config": 3}', describe(depth=20), describe(width="wide"), describe(x=1)],
)
def test_a_damaged_header_is_one_line(
    exported: tuple[Path, dict[str, Any]], tmp_path: Path, header: str
) -> None:
    path, _ = exported
    save_file(load_file(path), tmp_path / "bad.safetensors", {"masktrack_jax": header})
    with pytest.raises(UserError) as error:
        arguments = {"--input": tmp_path / "bad.safetensors", "--output": tmp_path / "x"}
        flags = [str(word) for pair in arguments.items() for word in pair]
        import_main([*flags, "--source", "mmtracking"])
    one_line(error, tmp_path / "bad.safetensors", "header")
    assert not (tmp_path / "x").exists()


def test_export_refuses(exported: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    path, _ = exported
    before = path.read_bytes()
    for checkpoint, output, word in (
        (path.parent / "checkpoint", path, "exists"),
        (path.parent / "checkpoint", tmp_path / "weights.pth", ".safetensors"),
        (tmp_path / "none", tmp_path / "other.safetensors", "no such checkpoint"),
    ):
        with pytest.raises(UserError) as error:
            export_weights(checkpoint, output)
        one_line(error, word)
    assert path.read_bytes() == before and not any(tmp_path.iterdir())
