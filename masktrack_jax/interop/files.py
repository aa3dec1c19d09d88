"""Read the tensors of a `.safetensors`, PyTorch or detectron2 file. Code in a file is never executed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import ml_dtypes  # noqa: F401 – bfloat16 for NumPy, which safetensors looks for
import numpy as np
from safetensors import SafetensorError, safe_open

from masktrack_jax.checkpoints.metadata import UNSOUND, Metadata, parse_metadata
from masktrack_jax.interop.pickles import read_arrays
from masktrack_jax.runtime.errors import UserError

if TYPE_CHECKING:
    import torch

Tensors = dict[str, np.ndarray]  # by name, in PyTorch's layout

# The types of safetensors that are read; the rest are quantised or complex, and need their own conversion.
TYPES = ("F16", "BF16", "F32", "F64", "I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "BOOL")

WRAPPERS = ("state_dict", "model", "model_state_dict")  # keys of the parameters in the file of a training run
OURS = "masktrack_jax"  # key of a checkpoint's metadata in the header of an exported file


class WeightsFile(NamedTuple):
    """The content of a file.

    class_names: names of the categories, if the file has them. caffe: whether the config in the file has the
    caffe style. metadata: metadata of the exported checkpoint, if `interop.export` wrote the file.
    """

    path: Path
    tensors: Tensors
    class_names: list[str] | None
    caffe: bool
    metadata: Metadata | None


def read(path: str | Path) -> WeightsFile:
    """Read a file. Raises a UserError if it is damaged or contains anything but tensors."""
    path = Path(path)
    readers = {
        ".safetensors": _read_safetensors,
        ".pth": _read_torch,
        ".pt": _read_torch,
        ".pkl": _read_pickle,
    }
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise UserError(f"{path}: has an unknown file type; give a .safetensors, .pth, .pt or .pkl file")
    if not path.is_file():
        problem = "is a folder, pipe or device, not a file" if path.exists() else "no such file"
        raise UserError(f"{path}: {problem}; check --input")
    content, header = readers[suffix](path)
    tensors = _without_module(content)
    if not tensors:
        raise UserError(f"{path}: holds no tensors by name; give a file with a state dict")
    meta = _dict_at(header, "meta")
    style = str(meta.get("config") or meta.get("cfg"))
    return WeightsFile(
        path=path,
        tensors=tensors,
        class_names=_class_names(meta),
        caffe=bool(re.search(r"style\s*=\s*['\"]caffe", style)),
        metadata=_metadata(path, header[OURS]) if OURS in header else None,
    )


def _read_safetensors(path: Path) -> tuple[Tensors, Mapping[str, Any]]:
    """Return the tensors and the entries of the header."""
    try:
        with safe_open(path, framework="numpy") as file:
            types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            for name, kind in types.items():
                if kind not in TYPES:
                    raise UserError(
                        f"{path}: {name:.200} is of type {kind}; convert it to F32 or BF16 where it was made"
                    )
            return {name: file.get_tensor(name) for name in types}, file.metadata() or {}
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: is not a complete safetensors file ({_first_line(error)}); get it again"
        ) from None


def _read_torch(path: Path) -> tuple[Tensors, Mapping[str, Any]]:
    """Return the tensors of the state dict, and the whole content of the file."""
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{path}: PyTorch is needed to read it and is not installed; make install EXTRAS=dev,torch, "
            "or give a .safetensors file"
        ) from None
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
        raise UserError(
            f"{path}: PyTorch {torch.__version__} may run code in a file; update it to 2.6 or later"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        header = content if isinstance(content, dict) else {}
        state = next((header[key] for key in WRAPPERS if isinstance(header.get(key), dict)), header)
        return {str(name): _array(x) for name, x in state.items() if isinstance(x, torch.Tensor)}, header
    except Exception as error:  # torch, zipfile and pickle raise many kinds
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            raise UserError(
                f"{path}: holds {found[1]}, not only tensors; nothing was run; save the state dict only"
            ) from None
        raise UserError(f"{path}: PyTorch cannot read it ({_first_line(error)}); get it again") from None


def _read_pickle(path: Path) -> tuple[Tensors, Mapping[str, Any]]:
    """Return the arrays of a file of detectron2's model zoo, and its whole content."""
    try:
        header = read_arrays(path.read_bytes())
    except KeyError:  # an instruction that does not exist
        raise UserError(f"{path}: is no pickle; get it again, or give it the suffix of its type") from None
    except Exception as error:  # a pickle can raise anything
        raise UserError(
            f"{path}: holds more than pickled arrays ({_first_line(error)}); nothing was run; save its state "
            "dict as .safetensors"
        ) from None
    state = next((header[key] for key in WRAPPERS if isinstance(header.get(key), dict)), header)
    if arrays := {str(name): x for name, x in state.items() if isinstance(x, np.ndarray)}:
        return arrays, header
    raise UserError(f"{path}: holds no pickled arrays by name; give a file with a state dict")


def _array(tensor: torch.Tensor) -> np.ndarray:
    """Convert a PyTorch tensor; floating point becomes float32. Raises a ValueError for a shape made up."""
    tensor = tensor.detach()
    if tensor.nbytes > tensor.untyped_storage().nbytes():  # strides of 0 state any size
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)} has fewer values")
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _without_module(tensors: Tensors) -> Tensors:
    """Remove the prefix `module.` that PyTorch's data parallelism adds."""
    if all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): x for name, x in tensors.items()}
    return tensors


def _dict_at(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def _class_names(meta: Mapping[str, Any]) -> list[str] | None:
    """Return the category names in the metadata of mmcv or mmengine, or None."""
    dataset = _dict_at(meta, "dataset_meta")
    found = meta.get("CLASSES") or dataset.get("classes") or dataset.get("CLASSES")
    if isinstance(found, str):
        return [found]
    if isinstance(found, list | tuple) and all(isinstance(name, str) for name in found):
        return list(found)
    return None


def _metadata(path: Path, text: str) -> Metadata:
    try:
        return parse_metadata(json.loads(text))
    except UNSOUND as error:
        raise UserError(f"{path}: its header cannot be read ({_first_line(error)}); get it again") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0][:200]
