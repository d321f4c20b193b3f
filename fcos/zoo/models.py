"""The table of models: presets, and published weights that are downloaded on first use."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ..config import Config
from ..presets import PRESETS, preset, with_dialect
from ..system.files import ASSETS
from ..system.machine import cache_folder
from .download import Remote


@dataclasses.dataclass(frozen=True)
class Entry:
    """A model of the zoo: what it is, where its weights are, what they reach.

    parameters: of the network with `classes` outputs. ap: COCO AP, 0..1, as published on `ap_on`, None where
    nothing is published. A bundled file says all of this itself (see `header`), and then that holds.
    """

    name: str
    about: str
    config: Config
    parameters: int
    classes: int = 80
    remote: Remote | None = None
    licence: str = ""
    ap: float | None = None
    ap_on: str = ""

    def bundled(self) -> Path | None:
        """The weights file in the package, or None."""
        path = ASSETS / f"{self.name}.safetensors"
        return path if path.is_file() else None

    def downloaded(self) -> Path | None:
        """The weights file in the cache, or None."""
        path = cache_folder() / f"{self.name}.safetensors"
        return path if self.remote is not None and path.is_file() else None

    def path(self) -> Path | None:
        """The weights file where it is on this machine already, or None."""
        return self.bundled() or self.downloaded()

    def facts(self) -> dict[str, Any]:
        """What `fcos models --json` tells of it; a weights file on this machine speaks for itself."""
        from ..network.weights import header

        path = self.path()
        row: dict[str, Any] = {
            "name": self.name,
            "backbone": self.config.model.backbone,
            "parameters": self.parameters,
            "size": self.config.data.size,
            "classes": self.classes if self.remote else None,
            "AP": self.ap,
            "judged_on": self.ap_on,
            "licence": self.licence,
            "weights": f"to download, {self.remote.size / 1e6:.0f} MB" if self.remote else "to train",
            "file": None,
            "about": self.about,
        }
        if path is not None:
            config, classes, about = header(path)
            kind = "bundled" if path == self.bundled() else "downloaded"
            row |= {
                "parameters": about.get("parameters", self.parameters),
                "size": config.data.size,
                "classes": len(classes),
                "AP": about.get("AP"),
                "judged_on": about.get("judged_on", ""),
                "licence": about.get("licence", ""),
                "weights": f"{kind}, {path.stat().st_size / 1e6:.1f} MB",
                "file": str(path),
            }
        return row


# network parameters of the presets with 80 classes
_PARAMETERS = {
    "fcos-lite0": 3_535_034,
    "fcos-lite1": 4_299_706,
    "fcos-lite2": 4_938_746,
    "fcos-r50": 32_297_370,
    "fcos-r50-2019": 32_297_370,
    "fcos-r50-rt": 27_334_554,
    "fcos-r101": 51_289_498,
    "fcos-x101-32x8d": 95_531_674,
    "fcos-x101-64x4d": 90_195_610,
    "fcos-hrnet-w32": 39_212_442,
}
# published weights, downloaded on first use
_DOWNLOADS = (
    Entry(
        "torchvision/fcos-r50-coco",
        "torchvision's FCOS_ResNet50_FPN_Weights.COCO_V1, under the torchvision dialect.",
        with_dialect(preset("fcos-r50"), "torchvision"),
        32_297_365,
        # the file's name holds the first digits of its hash
        remote=Remote(
            "https://download.pytorch.org/models/fcos_resnet50_fpn_coco-99b0c9b7.pth", "99b0c9b7", 129_612_000
        ),
        licence="BSD-3-Clause",
        ap=0.392,
        ap_on="COCO val2017, by torchvision",
    ),
)


def known_models() -> dict[str, Entry]:
    """Every name that `--model` takes."""
    presets = [
        # python -OO takes the texts of functions away
        Entry(name, next(iter((build.__doc__ or "").splitlines()), ""), build(), _PARAMETERS[name])
        for name, build in PRESETS.items()
    ]
    return {entry.name: entry for entry in (*presets, *_DOWNLOADS)}
