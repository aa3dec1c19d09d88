"""Read the tensors of a `.safetensors` or PyTorch file. Nothing in a file is ever executed."""

import json
import re
from pathlib import Path
from typing import NamedTuple

import ml_dtypes  # noqa: F401 – bfloat16 for NumPy, which safetensors looks for
from safetensors import SafetensorError, safe_open

from masktrack_jax.checkpoints.metadata import UNSOUND, Metadata, parse_metadata
from masktrack_jax.runtime.errors import UserError

WRAPPERS = ("state_dict", "model", "model_state_dict")  # where a training run's file holds its parameters
OURS = "masktrack_jax"  # key of what our export says of itself, in a safetensors file's header


class WeightsFile(NamedTuple):
    """What was read of a file."""

    path: Path
    tensors: dict  # name: NumPy array, in PyTorch's layout
    classes: list | None  # category names, where the file tells them
    caffe: bool  # the config in the file is of the caffe style
    about: Metadata | None  # of a file of `interop.export`


def read(path):
    """`WeightsFile` at `path`; raises a UserError for a file that is damaged or holds more than tensors."""
    path = Path(path)
    readers = {".safetensors": _read_safetensors, ".pth": _read_torch, ".pt": _read_torch}
    if path.suffix == ".pkl":
        raise UserError(f"{path}: pickled files could run code; save its state dict as .safetensors or .pth")
    if path.suffix not in readers:
        raise UserError(f"{path}: of unknown kind; give a .safetensors, .pth or .pt file")
    if not path.is_file():
        raise UserError(f"{path}: no such file; check --input")
    content, header = readers[path.suffix](path)
    tensors = _without_module(content)
    if not tensors:
        raise UserError(f"{path}: holds no tensors by name; give a file with a state dict")
    meta = header.get("meta") if isinstance(header.get("meta"), dict) else {}
    style = str(meta.get("config") or meta.get("cfg"))
    return WeightsFile(
        path=path,
        tensors=tensors,
        classes=_class_names(meta),
        caffe=bool(re.search(r"style\s*=\s*['\"]caffe", style)),
        about=_about(path, header[OURS]) if OURS in header else None,
    )


def _read_safetensors(path):
    """{name: array} and the header's entries."""
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise UserError(f"{path}: is no whole safetensors file ({_first_line(error)}); get it anew") from None


def _read_torch(path):
    """{name: array} of the state dict, and the whole of what the file holds."""
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{path}: PyTorch, which reads it, is not installed; make install EXTRAS=dev,torch, "
            "or give a .safetensors file"
        ) from None
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
        raise UserError(
            f"{path}: PyTorch {torch.__version__} may run code that a file holds; update it to 2.6 or later"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        header = content if isinstance(content, dict) else {}
        state = next((header[key] for key in WRAPPERS if isinstance(header.get(key), dict)), header)
        return {str(name): _array(x) for name, x in state.items() if isinstance(x, torch.Tensor)}, header
    except Exception as error:  # torch, zipfile and pickle have many of their own
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            raise UserError(
                f"{path}: holds {found[1]}, not tensors alone; none of it was run; save its state dict only"
            ) from None
        raise UserError(f"{path}: PyTorch cannot read it ({_first_line(error)}); get it anew") from None


def _array(tensor):
    """A PyTorch tensor as a NumPy array; floating point as float32."""
    tensor = tensor.detach()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _without_module(tensors):
    """Without the prefix that training on several devices leaves."""
    if all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): x for name, x in tensors.items()}
    return tensors


def _class_names(meta):
    """The category names in what mmcv or mmengine say of a checkpoint, or None."""
    dataset = meta.get("dataset_meta") if isinstance(meta.get("dataset_meta"), dict) else {}
    found = meta.get("CLASSES") or dataset.get("classes") or dataset.get("CLASSES")
    if isinstance(found, str):
        found = [found]
    good = isinstance(found, list | tuple) and all(isinstance(name, str) for name in found)
    return list(found) if good else None


def _about(path, text):
    try:
        return parse_metadata(json.loads(text))
    except UNSOUND as error:
        raise UserError(f"{path}: its header cannot be read ({_first_line(error)}); get it anew") from None


def _first_line(error):
    return (str(error).strip() or type(error).__name__).split("\n")[0][:200]
