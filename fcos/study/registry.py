"""The studies: a row here and a module with `run(asked)` each."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .asked import Asked, Judged


class Study(NamedTuple):
    """What a study tells, its module, what it needs ("data", "model"), and which options mean something to it beside
    the settings: those of `fcos study` by their names."""

    about: str
    module: str
    needs: tuple[str, ...]
    options: tuple[str, ...]

    def run(self, asked: Asked) -> Judged:
        """The data set that it was of, and what it comes to."""
        result: Judged = import_module(f".{self.module}", __package__).run(asked)
        return result


_PART = ("split", "limit")
STUDIES: dict[str, Study] = {
    "recall": Study("best possible recall, beside RetinaNet's anchors (table 1)", "recall", ("data",), _PART),
    "ambiguity": Study("locations that lie in several boxes (table 2)", "ambiguity", ("data",), _PART),
    "outputs": Study("output variables, beside nine anchors a location", "outputs", (), ()),
    "centerness": Study(
        "AP without, with computed, with predicted centerness (table 4)", "centerness", ("data", "model"), _PART
    ),
    "nms": Study("AP by NMS threshold and score rule; the best setting", "suppression", ("data", "model"), _PART),
    "proposals": Study(
        "AR@100 and AR@1000 of class-agnostic proposals (table 6)",
        "proposals",
        ("data", "model"),
        (*_PART, "baseline"),
    ),
    "oracle": Study("AP with one output at a time replaced by the truth", "oracle", ("data", "model"), _PART),
    "ablation": Study("trains the paper's improvements one by one; takes hours", "ablation", ("data",), ("seeds",)),
    "versus": Study(
        "trains FCOS, RetinaNet and an RPN (tables 3 and 6); takes hours",
        "versus",
        ("data",),
        (*_PART, "seeds", "minutes", "epochs", "methods"),
    ),
    "scaling": Study(
        "estimates training on 1 to 64 GPUs from a measured step",
        "scaling",
        ("model",),
        (*_PART, "step", "network", "inside", "machine", "loading"),
    ),
    "figures": Study("draws centerness.png and architecture.png", "portraits", ("model",), _PART),
}
