"""TorchScript by tracing: for C++ programs that link libtorch."""

from __future__ import annotations

import hashlib
import warnings
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from ...errors import ModelError, first_line
from ...network.model import FCOS
from ...system.machine import Placement
from ...system.readers import MB, check_archive, open_file
from ...system.threads import torch_threads
from .. import seal
from ..about import KEY, About, from_text
from ..graph import build, example
from ..runtime import Run


def write(network: FCOS, about: About, path: Path, images: Iterable[Tensor] = ()) -> None:
    """Write the traced graph with its metadata as an extra file inside."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated, and warns of each size it keeps free
        traced = torch.jit.trace(build(network, about), example(about), check_trace=False)
        with path.open("wb") as file:  # given a path, torch ends the process where the disk is full
            torch.jit.save(traced, file)
    describe(path, about)


def describe(path: Path, about: About) -> None:
    """Put the metadata into a file of torch.jit.save, where its `_extra_files` are."""
    with zipfile.ZipFile(path, "a") as archive:
        folder = archive.infolist()[0].filename.partition("/")[0]
        archive.writestr(f"{folder}/extra/{KEY}", about.to_text(_digest(archive)))


def read(path: Path) -> About:
    """The metadata of a file."""
    return from_text(_text(path), path)


def _text(path: Path) -> str | None:
    """The metadata as it lies in the zip file. torch.jit.load is not asked: it runs code of the file."""
    check_archive(path, ModelError)
    try:
        with open_file(path, 1 << 40, ModelError) as file, zipfile.ZipFile(file) as archive:
            entries = [e for e in archive.infolist() if _is_about(e)]
            if not entries or entries[0].file_size > 4 * MB:
                return None
            text = archive.read(entries[0]).decode()
            whole = f'"sha256": "{_digest(archive)}"' in text
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise ModelError(f"{path} is not a whole TorchScript file: {error}") from error
    if not whole:
        raise seal.not_whole(path)
    return text


def _is_about(entry: zipfile.ZipInfo) -> bool:
    return entry.filename.partition("/")[2] == f"extra/{KEY}"


def _digest(archive: zipfile.ZipFile) -> str:
    """The SHA-256 of all that is in the file, its metadata aside."""
    digest = hashlib.sha256()
    for entry in archive.infolist():
        if _is_about(entry):
            continue
        digest.update(f"{entry.filename}\n{entry.file_size}\n".encode())
        with archive.open(entry) as content:
            while part := content.read(MB):
                digest.update(part)
    return digest.hexdigest()


def _load(path: Path, device: torch.device) -> torch.jit.ScriptModule:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module: torch.jit.ScriptModule = torch.jit.load(str(path), map_location=device)
            return module
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{path} is not a whole TorchScript file: {first_line(error)}") from error


def runtime(path: Path, about: About, place: Placement) -> Run:
    """libtorch on the CPU or a GPU."""
    module = _load(path, place.device)

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        with torch_threads(place.threads), torch.inference_mode():
            result: tuple[Tensor, ...] = module(*(value.to(place.device) for value in inputs))
            return result

    return run
