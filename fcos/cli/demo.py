"""`fcos demo`: the whole job on what the package brings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import Device


def command(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for everything it makes. Default: fcos-demo.")
    ] = None,
    device: Device = "auto",
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Train for more or fewer epochs.")] = None,
) -> None:
    """See the whole job at work: detect, make data, train, evaluate. Offline, in minutes."""
    from ..demo.run import demo
    from ..errors import FcosError
    from ..system.files import check_folder
    from ..training.output.folder import next_folder

    check_folder(out)
    folder = out if out is not None else next_folder(Path(), "fcos-demo")
    if folder.exists() and any(folder.iterdir()):
        raise FcosError(f"{folder} is not empty; give another --out")
    demo(folder, device=device, epochs=epochs)
