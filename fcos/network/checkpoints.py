"""A checkpoint of anyone as a flat dict of tensors, read without running the code that it might hold.

Files of torch are first read with `weights_only=True`. Training checkpoints of other code bases may hold
objects of classes that are not installed here (log buffers, configs, schedulers). Those files, and
detectron2's .pkl, go through an unpickler that knows the few constructors of tensors and arrays; every
other name in the file becomes an empty stand-in, which does nothing when it is called or filled.
"""

from __future__ import annotations

import collections
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ModelError, first_line
from ..system.files import noticed
from ..system.readers import check_archive

WRAPPERS = ("state_dict", "model", "model_state", "model_state_dict", "net", "model_ema")
_PREFIXES = ("module.", "model.")  # of several GPUs and Lightning
_NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")  # arrays that become tensors
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # what torch.save wrote first before its zip files


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors by name, what else the file says) of .pth, .pt, .pkl or .safetensors.

    Enters "model" / "state_dict" / "model_state" entries; the names are as `unwrapped` gives them. The second value
    holds "file" (its name), "entry" and, where the file has it, "meta".
    Raises ModelError, one line, for a file that is missing, cut short or no checkpoint.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ModelError(f"there is no checkpoint {path}")
    if path.stat().st_size == 0:
        raise ModelError(f"{path} is empty")
    check_archive(path, ModelError)
    data = _load(path)
    info: dict[str, Any] = {"file": path.name, "entry": ""}
    if not isinstance(data, Mapping):
        kind = "an object of a class" if isinstance(data, _StandIn) else f"a {type(data).__name__}"
        raise ModelError(f"{path} holds {kind}, not a checkpoint with named tensors; save its state_dict()")
    if isinstance(data.get("meta"), Mapping):
        info["meta"] = dict(data["meta"])
    for name in WRAPPERS:
        if isinstance(data.get(name), Mapping):
            info["entry"] = name
            data = data[name]
            break
    state = unwrapped({str(k): tensor for k, v in data.items() if (tensor := _as_tensor(v)) is not None})
    if not state:
        raise ModelError(
            f"{path} holds no named tensors; its entries are {', '.join(map(str, list(data)[:5])) or 'none'}"
        )
    return state, info


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the names that they have in the network itself, without those of what was put around it."""
    # torch.compile may be around parts too; a count is beside the weights of torch's AveragedModel
    state = {k.replace("_orig_mod.", ""): v for k, v in state.items() if k != "n_averaged"}
    while prefix := next((p for p in _PREFIXES if state and all(k.startswith(p) for k in state)), ""):
        state = {k.removeprefix(prefix): v for k, v in state.items()}
    return state


def _load(path: Path) -> Any:
    with path.open("rb") as file:
        noticed(os.fstat(file.fileno()))
        start = file.read(32)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        torchs = zipfile.is_zipfile(path) or start.startswith(_LEGACY)
        if not torchs and (path.suffix == ".pkl" or start[:1] == b"\x80"):
            with path.open("rb") as file:
                return _Restricted(file, encoding="latin1").load()
        if not torchs:
            raise ModelError(_not_torchs(start))
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            if "weights_only" not in str(error) and "Weights only" not in str(error):
                raise
            return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_PICKLE)
    except Exception as error:
        raise ModelError(f"cannot read the checkpoint {path}: {first_line(error)}") from error


def _not_torchs(start: bytes) -> str:
    """Why a file that begins so is no file of torch.save."""
    if start[:2] == b"PK":
        return "the file is cut short"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS; fetch the file itself with git lfs pull"
    if start.lstrip()[:1] == b"<":
        return "it is a web page; download the file itself"
    return f"it is no file of PyTorch; it begins with {start[:12]!r}"


def _as_tensor(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        return value.detach()
    return torch.from_numpy(value.values) if isinstance(value, _Array) and value.values is not None else None


class _StandIn:
    """Takes the place of every class and function that a checkpoint names and we do not need."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass

    def __setitem__(self, _: Any, __: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> _StandIn:
        return self

    def append(self, _: Any) -> None:
        pass

    def extend(self, _: Any) -> None:
        pass


def _allowed() -> dict[tuple[str, str], Any]:
    known: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch", "Size"): torch.Size,
        ("torch", "device"): torch.device,
        ("_codecs", "encode"): _latin,
        ("builtins", "set"): set,
        ("__builtin__", "set"): set,
        ("builtins", "bytes"): _no_bytes,
        ("__builtin__", "bytes"): _no_bytes,
        ("torch.nn.parameter", "Parameter"): torch.nn.Parameter,
    }
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"):
        known["torch._utils", name] = getattr(torch._utils, name)
    for name in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool"):
        known["torch", f"{name}Storage"] = getattr(torch, f"{name}Storage")
    for name in ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"):
        known["torch", name] = getattr(torch, name)
    for package in ("numpy.core", "numpy._core"):
        known[f"{package}.multiarray", "_reconstruct"] = _Array
        known[f"{package}.multiarray", "scalar"] = _scalar
        known[f"{package}.numeric", "_frombuffer"] = _from_buffer
    known["numpy", "ndarray"] = _Array
    known["numpy", "dtype"] = _Dtype
    return known


class _Dtype:
    """numpy's dtype as a pickle tells of it; only plain numbers have a `known` one."""

    def __init__(self, text: object = "", *_: object) -> None:
        self.text, self.order = text, "|"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    @property
    def known(self) -> np.dtype[Any]:
        if self.text not in _NUMBERS or self.order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"an array of {str(self.text)[:40]!r} holds no numbers")
        return np.dtype(f"{self.order}{self.text}")


class _Array:
    """An array as a pickle tells of it, made of its bytes alone: numpy's own constructor and `__setstate__` would
    take a memory that the file says."""

    def __init__(self, *_: object) -> None:
        self.values: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, by_columns, data = state
        self.values = _from_buffer(data, dtype, shape, "F" if by_columns else "C").values


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    made = _Array()
    if isinstance(dtype, _Dtype) and dtype.text in _NUMBERS:  # objects and texts are no weights
        raw = data.encode("latin1") if isinstance(data, str) else data
        flat = np.frombuffer(raw, dtype.known)
        made.values = flat.reshape(shape, order="F" if order == "F" else "C").astype(flat.dtype.newbyteorder("="))
    return made


def _scalar(dtype: Any, data: Any = b"") -> Any:
    values = _from_buffer(data, dtype, (-1,), "C").values
    return None if values is None or not len(values) else values[0]


def _no_bytes(*_: object) -> bytes:
    """What protocol 2 calls for no bytes; others come by way of `_latin`."""
    return b""


def _latin(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1")


_ALLOWED = _allowed()


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _ALLOWED.get((module, name), _StandIn)


def _load_restricted(file: IO[bytes], **options: Any) -> Any:
    return _Restricted(file, **options).load()


# torch.load takes a module with these two names
_PICKLE: Any = SimpleNamespace(Unpickler=_Restricted, load=_load_restricted, __name__="fcos.network.checkpoints")
