"""What an exported file says about itself: settings, classes, and the shape of its graph."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..config import Config
from ..errors import FcosError, ModelError
from ..network.header import StoredExport, parse, stored_config
from ..system.files import write_whole
from ..system.readers import TEXT_LIMIT, read_bytes
from ..types import Classes
from . import seal

KEY = "fcos"  # under which every format keeps the text
Dtype = Literal["fp32", "bf16", "fp16", "int8"]
DTYPES: tuple[Dtype, ...] = ("fp32", "bf16", "fp16", "int8")


@dataclass(frozen=True)
class About:
    """config and classes of the detector, and what the graph takes and gives.

    `batch` and `size` (height, width) are None where the graph takes any; `size` then counts in steps of
    `config.data.divisor`. `pixels` is the input's type: uint8, or float32 in 0..255 for settings whose
    pre-processing makes fractions of grey levels. With `nms` the graph goes on to detections. `ap50`, of a fixed size
    that was judged on a data set: AP50 (0..1) of the model as it is, and of the model at this size. `sha256` is the
    digest by which a file that was written is known, see `fcos.export.seal`.
    """

    config: Config
    classes: Classes
    batch: int | None = None
    size: tuple[int, int] | None = None
    nms: bool = False
    dtype: Dtype = "fp32"
    version: str = ""
    sha256: str = ""
    ap50: tuple[float, float] | None = None

    @property
    def pixels(self) -> Literal["uint8", "float32"]:
        data = self.config.data
        return "float32" if data.padding == "exact" or data.resample == "torch" else "uint8"

    @property
    def outputs(self) -> list[str]:
        if self.nms:
            return ["boxes", "scores", "labels", "points", "count"]
        return ["logits", "distances", "centerness"]

    def to_text(self, sha256: str = seal.UNSET) -> str:
        """As `from_text` reads it; `fcos.export.seal` fills in the digest."""
        from ..version import __version__

        return json.dumps(
            {
                "format": "1",
                "version": __version__,
                "config": self.config.model_dump(mode="json"),
                "classes": {"names": self.classes.names, "ids": self.classes.ids},
                "graph": {
                    "batch": self.batch,
                    "size": self.size,
                    "nms": self.nms,
                    "dtype": self.dtype,
                    "ap50": self.ap50,
                },
                "sha256": sha256,
            }
        )


def from_text(text: str | bytes | None, path: str | Path) -> About:
    """The About of a file's metadata; ModelError where it is missing or damaged."""
    if not text:
        raise ModelError(f"{path} does not say how its images are prepared; only files of `fcos export` do")
    stored = parse(text, StoredExport, path)
    graph = stored.graph
    return About(
        stored_config(stored.config, path, stored.version),
        stored.classes.classes(),
        graph.batch,
        (graph.size[0], graph.size[1]) if graph.size else None,
        graph.nms,
        graph.dtype,
        stored.version,
        stored.sha256,
        (graph.ap50[0], graph.ap50[1]) if graph.ap50 else None,
    )


def side_file(path: Path) -> Path:
    """Where a format that cannot hold text keeps it: model.pte.json beside model.pte."""
    return path.with_name(path.name + ".json")


def write_side_file(path: Path, about: About) -> None:
    """Write the text beside the graph at `path`, with the digest of both."""
    write_whole(side_file(path), seal.sealed(about.to_text().encode(), path))


def read_side_file(path: Path) -> str | None:
    """The text beside the graph at `path`, None where there is none; ModelError where one of both has changed."""
    try:
        content = read_bytes(side_file(path), TEXT_LIMIT, ModelError)
        text = content.decode()
    except (FcosError, UnicodeDecodeError):
        return None
    seal.check(path, content, path)
    return text
