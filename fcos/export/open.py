"""Exported files: one file a format, each with `write` and, where it runs here, `read` and `runtime`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ..config import Config
from ..errors import ModelError
from ..system.files import scratch
from ..system.machine import Placement
from ..types import Classes
from .about import About, Dtype
from .registry import FORMATS, _known, format_of

if TYPE_CHECKING:
    from ..network.model import FCOS
    from .runtime import Runtime


def read_about(path: Path) -> About:
    """What an exported file says about itself; ModelError when it is not one of `fcos export`."""
    known = format_of(path)
    if known is None:
        suffixes = ", ".join(f.suffix for f in FORMATS.values() if f.suffix)
        raise ModelError(f"{path} is not an exported model; suffixes: {suffixes}")
    result: About = known.module.read(path)
    return result


def write_export(network: FCOS, about: About, format: str, path: Path, images: Iterable[Tensor] = ()) -> None:
    """Write `network` to `path` in a format; int8 is calibrated on `images`, prepared [1,3,H,W] each. What the
    toolchain prints goes to stderr."""
    chosen = _known(format)
    with redirect_stdout(sys.stderr):
        chosen.module.write(network, about, path, images)


def open_runtime(path: Path, place: Placement, overrides: Sequence[str] = ()) -> Runtime:
    """A Network that runs an exported file where and how `place` says; see `own_placement`. The runtime may be
    openvino for an ONNX file.

    `overrides` are settings around the network: those of the network itself are part of the file, and those
    of decoding too where it was exported with --nms.
    """
    from dataclasses import replace

    from .runtime import running

    written = format_of(path)
    about = read_about(path)
    runtime, asked = place.runtime, place.dtype
    if written is not None and runtime == written.name:
        used = written
    elif runtime == "openvino" and written is FORMATS["onnx"]:
        used = FORMATS["openvino"]
    else:
        assert written is not None
        hint = f"; `fcos export --format {runtime}` makes one" if runtime in FORMATS else ""
        raise ModelError(f"{path} is a file for the runtime {written.name}, not {runtime}{hint}")
    if not hasattr(used.module, "runtime"):
        raise ModelError(f"{path}: {used.name} files run on other devices only; nothing here can open them")
    if not used.computes(about.dtype, asked):
        raise ModelError(f"{path} computes in {about.dtype}; export it with --dtype {asked}")
    config = about.config.override(*overrides)
    for section in ("model", *(("decode",) if about.nms else ())):
        if getattr(config, section) != getattr(about.config, section):
            raise ModelError(f"{path}: the {section}.* settings are part of the file; give them to fcos export")
    changed = replace(about, config=config)
    if changed.pixels != about.pixels or config.data.divisor % about.config.data.divisor:
        raise ModelError(f"{path} takes {about.pixels} images padded to {about.config.data.divisor}; keep these")
    return running(path, place, about, changed)


def own_placement(path: Path) -> Placement:
    """The runtime and the number format that an exported file was written for, on the CPU."""
    written = format_of(path)
    about = read_about(path)
    assert written is not None  # read_about has refused others
    return Placement(runtime=written.name, dtype=about.dtype)


def on_the_fly(network: FCOS, config: Config, classes: Classes, place: Placement) -> Runtime:
    """A checkpoint's network on another runtime, through a file that is gone afterwards."""
    if place.dtype == "int8":
        raise ModelError("int8 needs images to calibrate on: fcos export --dtype int8 --calibrate DATA")
    chosen = _known(place.runtime)
    stored: Dtype = "fp16" if place.dtype == "fp16" else "fp32"  # bf16 is a way to compute, not a file
    if not chosen.computes(stored, place.dtype):
        raise ModelError(f"{place.runtime} computes in {', '.join(chosen.dtypes)}, not {place.dtype}")
    about = About(config, classes, dtype=stored)
    with scratch() as folder:
        path = folder / f"model{chosen.suffix}"
        write_export(network, about, chosen.name, path)
        return open_runtime(path, place)
