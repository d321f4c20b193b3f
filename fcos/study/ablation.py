"""The improvements of FCOS one after the other (1904.01355v5, "improvements"; 2006.09214), trained at equal
budget on a data set of the user's choice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import Config
from ..data.open import open_splits
from ..errors import DataError
from ..presets import DEFAULT
from ..system.files import write_whole
from ..system.terminal import data_name, json_ready, percent, plural, table
from ..training.output.folder import RunFolder, alone
from .asked import Asked, Judged
from .cells import check_batch, trained

if TYPE_CHECKING:
    from ..data.dataset import Dataset

BASE: dict[str, Any] = {
    "model": {"centerness_on": "classification", "regression": "exp", "normalize": False},
    "assign": {"center_radius": 0.0},
    "loss": {"box": "iou", "quality": "centerness"},
}
# each step stands on those before it; the paper's AP on COCO val with ResNet-50, where it is known
LADDER: tuple[tuple[str, dict[str, Any], float | None], ...] = (
    ("base (2019)", {}, 0.371),
    ("+ centerness on regression", {"model": {"centerness_on": "regression"}}, None),
    ("+ center sampling", {"assign": {"center_radius": 1.5}}, None),
    ("+ GIoU", {"loss": {"box": "giou"}}, None),
    ("+ normalised targets", {"model": {"regression": "relu", "normalize": True}}, 0.387),
    ("IoU in place of centerness", {"loss": {"quality": "iou", "box_weights": "none"}}, 0.394),
)


@dataclass(frozen=True)
class AblationStep:
    """One step: AP, AP50, AP75 of every seed, 0..1, and the paper's AP."""

    name: str
    ap: tuple[float, ...]
    ap50: tuple[float, ...]
    ap75: tuple[float, ...]
    paper: float | None


@dataclass(frozen=True)
class AblationStudy:
    """The ladder on one data set."""

    data: str
    epochs: int
    iterations: int
    steps: tuple[AblationStep, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        result: dict[str, Any] = json_ready({**vars(self), "steps": [vars(s) for s in self.steps]})
        return result

    def text(self) -> str:
        """For a terminal."""
        rows = []
        for s in self.steps:
            spread = percent(float(np.std(s.ap, ddof=1))) if len(s.ap) > 1 else "-"
            means = (percent(float(np.mean(v))) for v in (s.ap, s.ap50, s.ap75))
            rows.append((s.name, *means, spread, percent(s.paper, 1)))
        budget = f"{plural(self.iterations, 'step')}" if self.iterations else f"{plural(self.epochs, 'epoch')}"
        seeds = len(self.steps[0].ap)
        return f"{self.data}, {budget} each, {seeds} seed{'s' * (seeds > 1)}; all in %\n" + table(
            ("", "AP", "AP50", "AP75", "std of AP", "paper AP"), rows
        )

    def plot(self, path: Path) -> None:
        """Bars of the mean AP of every step beside the paper's."""
        from ..show.bar_plots import bars

        means: list[float | None] = [float(np.mean(s.ap)) for s in self.steps]
        columns = {"here": means, "paper (COCO, R-50)": [s.paper for s in self.steps]}
        bars(path, f"ablation: {data_name(self.data)}", [s.name for s in self.steps], columns)


def ladder(config: Config) -> list[tuple[str, Config, float | None]]:
    """(name, config, the paper's AP) of every step, all with the training budget of `config`."""
    current, result = config.override(BASE, {"train": {"linear_probe": 0}}), []  # the paper's start
    for name, change, paper in LADDER:
        current = current.override(change)
        result.append((name, current, paper))
    return result


def ablation_study(
    data: Mapping[str, Dataset],
    config: Config,
    out: str | Path,
    seeds: Sequence[int] = (0,),
    device: str = "auto",
) -> AblationStudy:
    """Train every step for every seed into a folder of its own under `out`; the last AP of each run counts.

    Every run starts from the weights of the backbone alone: a detector that was trained under one step's rules would
    favour that step.

    `ablation.txt` in `out` is written anew after every step, so a long study can be read while it goes on.
    Called again with the same `out` it goes on where it stopped: finished runs are read, a begun one resumes.
    Raises FcosError where a folder holds a run with other settings or of other data, or another process is at it;
    ConfigError for train.batch=auto.
    """
    check_batch(config)
    steps: list[AblationStep] = []
    name = str(data["train"].root)
    with alone(Path(out), "study"):
        for number, (title, step, paper) in enumerate(ladder(config)):
            judged = [
                _run(step.override({"train": {"seed": seed}}), data, Path(out) / f"{number}-seed{seed}", device)
                for seed in seeds
            ]
            ap, ap50, ap75 = zip(*judged, strict=True)
            steps.append(AblationStep(title, ap, ap50, ap75, paper))
            study = AblationStudy(name, config.train.epochs, config.train.iterations, tuple(steps))
            write_whole(Path(out) / "ablation.txt", study.text() + "\n")
    return study


def _run(config: Config, data: Mapping[str, Dataset], folder: Path, device: str) -> tuple[float, float, float]:
    """(AP, AP50, AP75) of one run, trained, resumed, or read from its folder; nan without validation."""
    trained(config, data, folder, device)
    judged = [row for row in RunFolder(folder, write=False).rows() if row["AP"]]
    ap, ap50, ap75 = (float(judged[-1][k]) if judged else math.nan for k in ("AP", "AP50", "AP75"))
    return ap, ap50, ap75


def run(asked: Asked) -> Judged:
    """The study as it is asked for: learned from is train, judged by val."""
    splits = open_splits(asked.source())
    missing = [k for k in ("train", "val") if k not in splits]
    if missing:
        raise DataError(
            f"{asked.data} has no {missing[0]} split (it has {', '.join(splits)}), which the ablation needs"
        )
    config = asked.config(DEFAULT)
    out, device = asked.out or Path("runs/ablation"), asked.placing.get("device", "auto")
    return splits["val"], ablation_study(splits, config, out, asked.seed_range(config), device)
