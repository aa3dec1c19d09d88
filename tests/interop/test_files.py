"""Weights files of all forms (wrapped, damaged, of other types, with code), and the command.

The oracle is the state dict that was written. Damaged files are rejected with one line; code never runs.
"""

import collections
import json
import os
import pickle
import struct
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from masktrack_jax.checkpoints import store
from masktrack_jax.checkpoints.metadata import read_metadata
from masktrack_jax.interop import __main__ as command
from masktrack_jax.interop import files
from masktrack_jax.interop.convert import import_weights
from masktrack_jax.models.masktrack_rcnn import build_model
from masktrack_jax.runtime import cli
from masktrack_jax.runtime.errors import UserError
from tests.helpers.interop import quick_initialisation
from tests.helpers.torch_networks import NAMES, make_state

STATE = make_state(NAMES["mmtracking"], 18, (41, 160, 40))


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A safetensors file that can be imported."""
    path = tmp_path / "weights.safetensors"
    save_file(STATE, path)
    return path


def run(tmp_path: Path, path: Path, source: str = "mmtracking", *more: str) -> Path:
    """The command on a file, as a shell runs it; its output folder."""
    output = tmp_path / "out" / "checkpoint"
    arguments = ["--input", str(path), "--source", source, "--output", str(output), *more]
    cli.run(command.main, arguments)
    return output


def refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], path: Path, *words: str, source: str = "mmtracking"
) -> None:
    """The command says one line with the file's name and these words, exits with 1 and writes nothing."""
    before = set(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, path, source)
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert (stopped.value.code, out) == (1, "")
    assert line.startswith(f"error: {path}: ") and len(line) < 400
    for word in words:
        assert word in line
    assert set(tmp_path.rglob("*")) == before


def test_the_command_writes_a_checkpoint(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = run(tmp_path, whole)
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == f"{whole}: mmtracking, ResNet-18, 40 classes assumed to be youtubevis2019's"
    assert last == str(output) and [p.name for p in output.parent.iterdir()] == ["checkpoint"]
    about = read_metadata(output)
    variables = store.load_variables(output, build_model(about.config, 40))
    kernel = STATE["detector.neck.fpn_convs.1.conv.weight"]
    ours = variables["params"]["fpn"]["output3"]["conv"]["conv"]["kernel"]
    np.testing.assert_array_equal(np.transpose(ours, (3, 2, 0, 1)), kernel)
    before = output.stat().st_mtime_ns
    with pytest.raises(SystemExit):
        run(tmp_path, whole)
    assert f"error: {output}: exists" in capsys.readouterr().err
    assert output.stat().st_mtime_ns == before


def test_nothing_is_left_of_a_failed_write(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, variables: Any, about: Any) -> None:
        Path(path).mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "write_variables", fail)
    with pytest.raises(SystemExit):
        run(tmp_path, whole)
    assert "No space left" in capsys.readouterr().err
    assert not any((tmp_path / "out").iterdir())


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
def test_truncated_safetensors(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], keep: int | float
) -> None:
    content = whole.read_bytes()
    whole.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    refused(tmp_path, capsys, whole, "not a complete safetensors file")


@pytest.mark.parametrize("content", [b"\x80\x04not a header", b"PK\x03\x04" + bytes(100)])
def test_other_content_in_safetensors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    refused(tmp_path, capsys, path)


def test_no_tensors_in_safetensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({}, tmp_path / "weights.safetensors")
    refused(tmp_path, capsys, tmp_path / "weights.safetensors", "no tensors")


def test_another_source(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(tmp_path, capsys, whole, "--source mmtracking", source="torchvision")


@pytest.mark.parametrize(
    "name, word", [("model.pkl", "pickled"), ("model.onnx", "unknown file type"), ("model.pth", "no such")]
)
def test_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, word: str) -> None:
    if name != "model.pth":
        (tmp_path / name).write_bytes(pickle.dumps({"model": 1}))
    refused(tmp_path, capsys, tmp_path / name, word)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pkl"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    os.mkfifo(tmp_path / name)
    refused(tmp_path, capsys, tmp_path / name, "is a folder, pipe or device, not a file")


def test_tensors_without_values_describe_no_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stem = next(name for name, x in STATE.items() if x.ndim == 4)
    path = tmp_path / "weights.safetensors"
    save_file({**STATE, stem: STATE[stem][:0]}, path)
    refused(tmp_path, capsys, path)


def test_names_of_tensors_are_not_printed_raw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_initialisation(monkeypatch)
    save_file({**STATE, "\x1b[31m\n": np.zeros(1, np.float32)}, tmp_path / "weights.safetensors")
    run(tmp_path, tmp_path / "weights.safetensors")
    assert r"unused in the file: \x1b[31m\n" in capsys.readouterr().out
    save_file({"\x1b" * 10**4: np.zeros(1, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError) as error:
        import_weights(tmp_path / "other.safetensors", "mmdet")
    assert "\x1b" not in str(error.value) and len(str(error.value)) < 1200


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    values = np.float32([1.5, -0.25, 3.0])
    header = json.dumps({"x": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}).encode()
    brain = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    (tmp_path / "b.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + brain)
    read = files.read(tmp_path / "b.safetensors").tensors["x"]
    np.testing.assert_array_equal(read.astype(np.float32), values)


def test_the_prefix_of_several_devices(tmp_path: Path) -> None:
    save_file({f"module.{name}": x for name, x in STATE.items()}, tmp_path / "a.safetensors")
    assert files.read(tmp_path / "a.safetensors").tensors.keys() == STATE.keys()


def test_without_pytorch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "model.pth").write_bytes(b"anything")
    refused(tmp_path, capsys, tmp_path / "model.pth", "EXTRAS=dev,torch")


class Trap:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


class TestPyTorch:
    """`.pth` files, which need PyTorch."""

    @pytest.fixture
    def torch(self) -> ModuleType:
        return pytest.importorskip("torch")

    @pytest.fixture
    def tensors(self, torch: ModuleType) -> dict[str, Any]:
        return collections.OrderedDict((name, torch.from_numpy(x)) for name, x in STATE.items())

    @pytest.mark.parametrize("old", [False, True])
    @pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
    def test_wrappers(
        self, torch: ModuleType, tensors: dict[str, Any], tmp_path: Path, wrapper: str | None, old: bool
    ) -> None:
        content = (
            {wrapper: tensors, "optimizer": {"state": {0: {"step": torch.ones(2)}}}} if wrapper else tensors
        )
        torch.save(content, tmp_path / "model.pth", _use_new_zipfile_serialization=not old)
        read = files.read(tmp_path / "model.pth")
        assert read.tensors.keys() == STATE.keys() and not read.caffe
        for name, x in STATE.items():
            np.testing.assert_array_equal(read.tensors[name], x)

    @pytest.mark.parametrize("key", ["CLASSES", "classes"])
    def test_classes_of_meta(
        self,
        torch: ModuleType,
        tensors: dict[str, Any],
        tmp_path: Path,
        key: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        quick_initialisation(monkeypatch)
        names = tuple(f"class {i}" for i in range(40))
        meta = {"CLASSES": names} if key == "CLASSES" else {"dataset_meta": {"classes": list(names)}}
        torch.save({"meta": meta, "state_dict": tensors}, tmp_path / "model.pth")
        imported = import_weights(tmp_path / "model.pth", "mmtracking")
        assert imported.metadata.categories == list(enumerate(names, start=1))
        assert imported.lines[0].endswith("40 classes named in the file")

    def test_caffe_style(
        self, torch: ModuleType, tensors: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        meta = {"config": "model = dict(\n backbone=dict(norm_eval=True, style='caffe'))"}
        torch.save({"meta": meta, "state_dict": tensors}, tmp_path / "model.pth")
        refused(tmp_path, capsys, tmp_path / "model.pth", "caffe")

    def test_half_precision(self, torch: ModuleType, tmp_path: Path) -> None:
        torch.save({"a": torch.tensor([1.5]).bfloat16(), "b": torch.tensor(3)}, tmp_path / "model.pt")
        read = files.read(tmp_path / "model.pt").tensors
        assert read["a"].dtype == np.float32 and read["a"] == 1.5 and read["b"] == 3

    @pytest.mark.parametrize("old", [False, True])
    def test_code_is_not_run(
        self,
        torch: ModuleType,
        tensors: dict[str, Any],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        old: bool,
    ) -> None:
        trap = {"state_dict": tensors, "meta": Trap(tmp_path / "sprung")}
        torch.save(trap, tmp_path / "model.pth", _use_new_zipfile_serialization=not old)
        refused(tmp_path, capsys, tmp_path / "model.pth", "not only tensors")
        assert not (tmp_path / "sprung").exists()

    def test_a_plain_pickle_with_code(
        self, torch: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "model.pth").write_bytes(pickle.dumps(Trap(tmp_path / "sprung"), protocol=2))
        refused(tmp_path, capsys, tmp_path / "model.pth")
        assert not (tmp_path / "sprung").exists()
        pickle.loads((tmp_path / "model.pth").read_bytes())
        assert (tmp_path / "sprung").exists()  # it would have

    @pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
    def test_truncated(
        self,
        torch: ModuleType,
        tensors: dict[str, Any],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        keep: int | float,
    ) -> None:
        path = tmp_path / "model.pth"
        torch.save(tensors, path)
        content = path.read_bytes()
        path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
        refused(tmp_path, capsys, path, "PyTorch cannot read it")

    @pytest.mark.parametrize("content", [3, [1, 2], {"epoch": 3}, {"state_dict": {"epoch": 3}}])
    def test_no_state_dict(
        self, torch: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: Any
    ) -> None:
        torch.save(content, tmp_path / "model.pth")
        refused(tmp_path, capsys, tmp_path / "model.pth", "no tensors")
